"""The HTTP server: the OpenAI API and a web page. It imports no torch; the model is behind the `Backend` protocol."""
