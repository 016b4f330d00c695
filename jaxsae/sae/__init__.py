"""The sparse autoencoder: its arrays, its architectures, its figures."""
