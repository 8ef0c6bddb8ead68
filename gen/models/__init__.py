"""From a trained spiking transformer to a configuration and integers: ``python -m gen import``.

``read.py`` reads files, ``state_dict.py`` and ``nir_graph.py`` make a `graph.Network` of real
numbers of them, ``integers.py`` makes that integer with what ``rounding.py`` shares with examples,
``calibrate.py`` measures what it loses and ``table.py`` says it. The format that comes out is that
of ``sim/golden/transformer.py``; ``model.schema.json`` holds its form.
"""
