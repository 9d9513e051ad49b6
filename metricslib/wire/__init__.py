"""Wire formats: values in, bytes out. No sockets."""
