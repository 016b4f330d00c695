"""Damaged texts -> what may have stood there.

Read in this order: places, candidates, search, lengths, fillings, calibration, kept, answer.
"""
