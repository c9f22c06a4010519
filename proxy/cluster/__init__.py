"""Where endpoints come from: the API server's EndpointSlices, or the same objects in a file."""
