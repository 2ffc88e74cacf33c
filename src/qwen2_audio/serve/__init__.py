"""A checkpoint as a service: the OpenAI API, and a page to talk to. No torch in here: the model is a `Backend`."""
