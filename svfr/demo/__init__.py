"""Training the bundled model from nothing, on rendered faces: VAE, ID network, then SVFR."""
