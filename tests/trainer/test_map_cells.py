"""Which runs are one cell of a map, and which of them are its baseline, its gammas and its controls."""

from made_up_map import decay, none, runs, so, srip
from made_up_runs import made_up

from ortho_kernels.trainer.report.groups import groups_of
from ortho_kernels.trainer.report.map_cells import cells_of, written

WHOLE = {
    so(1e-3): [0.5, 0.5],
    none(10.0): [0.5, 0.5],
    none(): [0.5, 0.5],
    srip(0.02): [0.5],
    decay(3.3e-4): [0.5],
    so(1e-4): [0.5, 0.5],
    none(0.1): [0.5, 0.5],
}


def cells(*records):
    return cells_of(groups_of([run for several in records for run in several]))


def test_a_cell_has_gammas_and_controls_from_the_least_up():
    [cell] = cells(runs(WHOLE))
    assert cell.name == "simclr, resnet18"
    assert cell.weight_decay == 5e-4
    assert [(one.name, one.values, one.is_control) for one in cell.series] == [
        ("so", ("1e-4", "1e-3"), False),
        ("srip", ("2e-2",), False),
        ("decay", ("3.3e-4",), True),
        ("weight decay", ("×0.1", "×10"), True),
    ]
    assert [group.label for group in cell.groups] == [
        *("gamma 0", "so 1e-4", "so 1e-3", "srip 2e-2", "decay 3.3e-4", "weight decay ×0.1", "weight decay ×10")
    ]
    assert [group.settings["optimizer.weight_decay"] for group in cell.controls[1].groups] == [5e-5, 5e-3]
    assert list(cell.baseline.by_seed) == [0, 1]


def test_methods_and_backbones_are_cells_of_their_own():
    byol, large = {"method.name": "byol"}, {"backbone.name": "resnet50"}
    found = cells(runs(WHOLE), runs(WHOLE, byol), runs(WHOLE, large), runs(WHOLE, byol | large))
    assert [cell.name for cell in found] == [
        *("simclr, resnet18", "byol, resnet18", "simclr, resnet50", "byol, resnet50")
    ]
    assert {len(cell.groups) for cell in found} == {7}


def test_cells_of_one_method_and_backbone_are_told_apart_by_their_settings():
    found = cells(runs(WHOLE), runs(WHOLE, {"backbone.width": 16, "data.name": "cifar10"}))
    assert [cell.name for cell in found] == [
        "simclr, resnet18, data.name=digits, backbone.width=None",
        "simclr, resnet18, data.name=cifar10, backbone.width=16",
    ]


def test_penalties_at_two_weight_decays_are_two_cells_which_share_what_has_no_penalty():
    found = cells(runs({**WHOLE, ("so", 1e-4, 10.0): [0.5]}))
    assert [cell.name for cell in found] == [
        "simclr, resnet18, optimizer.weight_decay=0.0005",
        "simclr, resnet18, optimizer.weight_decay=0.005",
    ]
    second = found[1]
    assert second.baseline.settings["optimizer.weight_decay"] == 5e-3
    assert [(one.name, one.values) for one in second.series] == [
        ("so", ("1e-4",)),
        ("weight decay", ("×0.01", "×0.1")),
    ]


def test_a_map_that_has_just_begun_has_cells_too():
    [cell] = cells(runs({none(): [0.5]}))
    assert (cell.baseline.label, cell.series) == ("gamma 0", ())
    [cell] = cells(runs({so(1e-4): [0.5]}))
    assert cell.baseline is None
    assert cells([]) == []


def test_options_of_a_penalty_make_a_series_of_their_own():
    more = {"penalty.iterations": 5}
    [cell] = cells(
        runs({srip(0.02): [0.5]}, {"penalty.iterations": 2}), runs({srip(0.02): [0.5], srip(0.2): [0.5]}, more)
    )
    assert [(one.name, one.values) for one in cell.series] == [
        ("srip, iterations 2", ("2e-2",)),
        ("srip, iterations 5", ("2e-2", "0.2")),
    ]


def test_of_several_baselines_the_one_with_most_seeds_is_taken():
    few, many = runs({("srip", 0.0, 1.0): [0.4]}), runs({none(): [0.5, 0.5]})
    [cell] = cells(few, many, runs({so(1e-4): [0.5]}))
    assert [run.results["knn"] for run in cell.baseline.runs] == [0.5, 0.5]


def test_without_weight_decay_the_others_are_named_by_themselves():
    zero = {("so", gamma, factor): [0.5] for gamma, factor in ((1e-4, 0.0), (0.0, 0.0), (0.0, 1.0))}
    [cell] = cells(runs(zero))
    assert cell.controls[0].values == ("5e-4",)


def test_runs_without_a_gamma_have_no_cell():
    bare = made_up("bare", {"penalty.gamma": None})
    assert cells([bare]) == []


def test_numbers_are_written_as_one_types_them():
    numbers = [0.0, 1e-7, 3.3e-4, 1e-3, 0.02, 0.33, 1.0, 20.0]
    assert [written(number) for number in numbers] == [*("0", "1e-7", "3.3e-4", "1e-3", "2e-2", "0.33", "1", "20")]
