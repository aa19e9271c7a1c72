"""What a recipe (`distil.config`) means: names, presets, every check, the file it is read from.

    recipefile      YAML through the parser of the command line's flags
    presets         published settings by name; evalpresets those of evaluations
    algorithms      what `objective.name` stands for
    ownfunctions    functions of the user's own, named as path/to/file.py:function
    shapechecks     fields as a file has them: unknown ones, wrong shapes
    checks          every check on the values; rangechecks, taskchecks, critiquechecks,
                    samplerchecks and servedchecks hold its parts

Left out: the schema, and anything that needs torch.
"""
