"""What runs on a robot: exported policies, a client of their server, smooth motion.

`runtime` loads what `export` wrote and decides on time; `watchdog` holds when decisions
stop coming; `client` asks a server instead; `interpolator` moves smoothly from one
decision to the next. Only the files that write policies import the rest of the method.
"""
