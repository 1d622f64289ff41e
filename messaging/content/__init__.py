"""What a message says: the shape an author stores, the words that come of it for one lead, and what a gateway carries.

======================= ====================================================================================
``shape``               the stored JSON, parsed and checked, every problem named with its field
``wording``             the template language: variables, fallbacks, choices; errors with line and column
``spintax``             ``{Hi|Hello}``: where the choices of a text are, and which one a message gets
``greeting``            good morning, by the lead's own clock
``prepare``             content and a lead become what goes out
``check``               the launch check-list: what a gateway cannot carry
======================= ====================================================================================
"""
