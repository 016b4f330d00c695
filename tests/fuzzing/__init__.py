"""Files for the readers that are not as they should be: `mutations` changes bytes, `meanings` what the files say."""
