"""What the command line does. Each module is one command, or what several of them share.

A command's function takes the arguments that ``cli.py`` describes, and returns the exit code: 0 if all is well, 1 if
something is wrong. What was typed wrong is raised as :class:`~balance_bridge.commands.arguments.UsageError`.
"""
