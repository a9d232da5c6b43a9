"""A sample crawl of our own: texts written for this project, and the builder that makes a crawl of them."""
