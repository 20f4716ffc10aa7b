"""Who runs which room: see `tests.rooms`."""

from tests.rooms import CLUSTERS, share, suits


def test_each_room_with_a_cluster_is_one_process_s_own_and_files_are_the_others_business():
    names = [*CLUSTERS, share("tests/crds/test_crd.py::test_it"), share("tests/trainer/test_data.py::test_it")]
    first = {name: [place for place in range(3) if suits(name, place)] for name in names}
    assert first == {
        "operator": [0],
        "e2e": [1],
        "charts": [0],
        "cluster": [0],
        "tests/trainer/test_data.py": [1, 2],
    }
