"""Attachments: pictures, documents, videos and sounds.

=============== ================================================================================
``models``      a file of an owner, stored once by what is in it
``kinds``       what a file is, by its bytes, never by its name
``images``      pictures made fit to be sent: upright, flat, without metadata, small
``fetch``       files from addresses that people give, with a guard around it
``store``       the way in: from an upload, from base64, from an address
``signing``     addresses that work without a log-in, for a few hours
``attaching``   the way out: what a driver gets
``serving``     what stands behind a signed address
=============== ================================================================================
"""
