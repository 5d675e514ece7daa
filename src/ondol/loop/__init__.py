"""The order of the stages, and the conductor that goes round by itself.

The only room that knows which stage follows which. Must not know where things run or how they are spoken to.
"""
