"""Documents and pictures as text, page by page."""
