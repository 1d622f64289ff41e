"""A small seed for showing Flotilla to people: an owner of its own with a fleet, leads, a campaign, a sequence and a
history. Nothing of it is sent anywhere, and all of it goes again without a trace.
"""
