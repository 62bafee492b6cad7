"""What ``mpirun`` starts: the command ``distgrad`` and the recipe that every rank runs. Imported as `distgrad.launch`.

``cli`` reads the command line; ``finetune``, ``evaluate`` and ``predict`` are the commands; ``settings`` is everything
that a config can say; ``recipe`` turns settings into data, model and optimizer; ``run_folder`` is what a run leaves.
"""
