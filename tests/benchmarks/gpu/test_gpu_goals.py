"""The goals beside what a day measured."""

import re

from benchmarks.gpu import goals


def figure(stage, case, value):
    return {"stage": stage, "case": case, "value": value, "unit": "us"}


def contestants(penalty, model, dtype, **medians):
    times = {name.replace("_", "-"): {"both_us": {"median": median}} for name, median in medians.items()}
    return {"stage": "rivals", "penalty": penalty, "model": model, "dtype": dtype, "contestants": times}


def test_goals_are_held_against_the_figures():
    found = [
        {"facts": {"card": "NVIDIA H200"}},
        figure("ceilings", "copy", 4.0),
        contestants("so", "resnet50", "float32", cuda_graph=500, triton_graph=400, products_graph=900, graph=2600),
        contestants("srip", "resnet50", "float32", triton_graph=300),
        figure("host", "so resnet50 cuda host autograd", 301.0),
        figure("training", "so penalty share", 0.02),
        figure("training", "none images per second", 990.0),
        figure("training", "held batch images per second", 1000.0),
        {"stage": "doctor", "status": "ok"},
        {"stage": "smoke", "status": "failed"},
        {"stage": "memcheck", "status": "ok"},
        {"stage": "racecheck", "status": "not run"},
    ]
    lines = {re.split(" +[<>]=", line)[0].strip(): line for line in goals.table(found).splitlines()}
    assert lines["doctor, smoke tests: stages that failed"].endswith("1: MISSED")
    assert lines["memcheck, racecheck: stages that failed"].endswith("not measured (racecheck)")
    assert lines["SO float32, ResNet-50"].endswith("400 us: met")
    assert lines["cuBLAS's products alone over ours"].endswith("2.25 x: MISSED")
    assert lines["eager over ours"].endswith("6.5 x: met")
    assert "not measured (rivals: so resnet50 float32 bucketed-graph)" in lines["bucketed over ours"]
    assert lines["SRIP float32, ResNet-50, over 5 W"].endswith("2.353 x: met")  # of 2.6 on an H200
    assert lines["host, 54 weights: by autograd"].endswith("301 us: MISSED")
    assert lines["training: SO's share of the step"].endswith("2 %: met")
    assert lines["training: images/s over those without data"].endswith("99 %: met")


def test_goals_of_a_folder_without_results(tmp_path, capsys):
    assert goals.main([str(tmp_path)]) == 1
    assert "give the folder that gpu_day.py wrote to" in capsys.readouterr().err
