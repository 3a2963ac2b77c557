"""The way of requests whose head has been seen before: what the pipeline decided on it is a L{flow}, and is kept.

The pipeline remains the only place where decisions are made. A request with the head of a flow is checked against it
byte for byte and sent; whatever turns out to be unusual goes on in the pipeline from there, with the objects that it
would have had. One can delete this package, and C{server.fast_path: false} does without it.
"""
