from embfit.suggestions import nearest, suggestion


def test_the_nearest_name():
    assert nearest("bge-lage", ["bge-large", "bge-base", "minilm"]) == "bge-large"
    assert nearest("zzz", ["bge-large"]) is None


def test_suggestion_names_the_nearest_or_lists_the_few_there_are():
    assert suggestion("epoch", ["epochs", "steps"]) == "; did you mean 'epochs'?"
    assert suggestion("zzz", ["steps", "epochs"]) == "; it is one of epochs, steps"
    assert suggestion("zzz", [f"name{number}" for number in range(17)]) == ""
    assert suggestion("zzz", []) == ""
