"""The tabs of the page: what stands where, and what a click does."""
