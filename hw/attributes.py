"""Attributes that tell a synthesis tool how a memory is meant."""

NO_COLLISION = {"no_rw_check": 1}
"""Attribute of a memory that is never read and written at one address in one clock.

Without it Yosys builds a bypass of a register and a multiplexer per bit around a block RAM, since
a Verilog memory read in the clock of a write gives the old word.
"""

LOADED = {"loaded": 1}
"""Attribute of a memory that is written before anything is read from it.

It has no contents at power-up then, and a large RAM that can't have any will do (iCE40 UP5K).
"""

BLOCK = {"ram_style": "block"}
"""Attribute of a memory that is wide and shallow: in LUTs it would cost more than what reads it."""
