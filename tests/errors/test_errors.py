from serried.errors import BadInput, MissingFigure, NoAnswer, nearest


def test_bad_input_names_field_value_expectation_and_remedy():
    error = BadInput(file="a.toml", field="figures.price", value=-3, expected="a positive quantity",
                     remedy="Leave it out.")
    assert str(error) == "a.toml: figures.price = -3: expected a positive quantity. Leave it out."
    assert error.exit_code == 2


def test_no_answer_is_not_bad_input():
    assert NoAnswer("nothing fits", binding="weights").exit_code == 1
    assert issubclass(MissingFigure, BadInput)


def test_nearest_names():
    assert nearest("H1000", ["h100", "a100", "tpu-v5e"])[0] == "h100"
    assert nearest("zzzzzz", ["h100"]) == []
