"""Label sets and the look-up from one to another."""

from __future__ import annotations

from mtl_training.labels import (
    CLASS_SETS,
    NYUD40,
    NYUD_ID,
    PASCAL21,
    ROBOT_GROUPS,
    LabelClass,
    as_table,
    from_table,
    lookup,
)
from mtl_training.tasks import TASK_SETS

NYUD_NAMES = [label.name for label in NYUD40]


def test_groups_cover_every_class_once() -> None:
    members = [member for group in ROBOT_GROUPS for member in group.members]
    assert sorted(members) == sorted(NYUD_NAMES)
    assert len({group.color for group in ROBOT_GROUPS}) == len(ROBOT_GROUPS)


def test_stored_ids_become_groups_and_void_becomes_no_label() -> None:
    table = lookup(NYUD_NAMES, ROBOT_GROUPS, first=1)
    assert table is not None
    assert table[0] == table[41] == table[255] == 255
    names = {name: ROBOT_GROUPS[table[NYUD_ID[name]]].name for name in NYUD_NAMES}
    assert names['desk'] == names['counter'] == 'table'
    assert (names['sink'], names['towel'], names['otherprop']) == ('sanitary', 'textile', 'other')


def test_stored_ids_begin_at_one_and_those_of_a_network_at_zero() -> None:
    stored, predicted = lookup(NYUD_NAMES, NYUD40, first=1), lookup(NYUD_NAMES, NYUD40)
    assert stored is not None
    assert predicted is not None
    assert stored[:42].tolist() == [255, *range(40), 255]
    assert predicted[:41].tolist() == [*range(40), 255]


def test_a_set_is_looked_up_in_itself_and_a_finer_one_not_at_all() -> None:
    groups = [group.name for group in ROBOT_GROUPS]
    same = lookup(groups, ROBOT_GROUPS)
    assert same is not None
    assert same[:19].tolist() == [*range(18), 255]
    assert lookup(groups, NYUD40) is None
    assert lookup(NYUD_NAMES, PASCAL21) is None


def test_a_network_has_a_channel_for_every_class_of_its_task_set() -> None:
    assert CLASS_SETS.keys() == TASK_SETS.keys()
    for name, tasks in TASK_SETS.items():
        assert tasks(CLASS_SETS[name])['semantic'].channels == len(CLASS_SETS[name]), name


def test_a_table_is_plain_data() -> None:
    assert as_table(ROBOT_GROUPS)[1] == {'id': 1, 'name': 'floor', 'color': [152, 223, 138]}


def test_a_table_is_read_as_the_set_that_it_names() -> None:
    """With members, which tables do not have; a set of one's own comes back as it was written."""
    recolored = [{**entry, 'color': [0, 0, 0]} for entry in as_table(ROBOT_GROUPS)]
    assert from_table(recolored) == ROBOT_GROUPS
    own = (LabelClass('road', (1, 2, 3)), LabelClass('kerb', (4, 5, 6)))
    assert from_table(as_table(own)) == own
