"""Ready instrumentation for frameworks and libraries, one module each. A module is imported only when it is used.

Every module has one verb, ``instrument``::

    from metricslib.integrations import flask

    flask.instrument(app)

Names follow OpenTelemetry's semantic conventions where one exists. Tags hold only values of bounded number: route
templates, never paths; methods that the HTTP standard knows; classes of status, such as ``2xx``.
"""
