"""Whether what was served is what a point-in-time computation gives, and why where it is not."""
