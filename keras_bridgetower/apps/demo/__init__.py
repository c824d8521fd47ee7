"""A page in the browser on which one tries a model without any code."""
