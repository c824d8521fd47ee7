"""Which variable holds which tensor of another library."""
