"""aws/: policies that name what AWS has, and no more than the guide says."""

import json
from pathlib import Path

import botocore.session
import pytest

AWS = Path(__file__).parents[2] / "aws"
POLICIES = ("grafp-head", "grafp-worker")
OTHER_NAMES = {  # actions of IAM that are not named like the operation
    "s3:ListBucket": "ListObjectsV2",
    "iam:PassRole": None,
}


def statements(name: str) -> list[dict]:
    policy = json.loads((AWS / f"{name}.json").read_text())
    assert policy["Version"] == "2012-10-17"
    return policy["Statement"]


def as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@pytest.mark.parametrize("name", POLICIES)
def test_every_action_is_an_operation_of_its_service(name: str) -> None:
    session = botocore.session.Session()
    for statement in statements(name):
        assert statement["Effect"] == "Allow"
        for action in as_list(statement["Action"]):
            assert "*" not in action
            service, _, operation = action.partition(":")
            operation = OTHER_NAMES.get(action, operation)
            if operation:
                known = session.get_service_model(service).operation_names
                assert operation in known, action


@pytest.mark.parametrize("name", POLICIES)
def test_only_descriptions_are_allowed_of_everything(name: str) -> None:
    for statement in statements(name):
        if "*" in as_list(statement["Resource"]):
            actions = as_list(statement["Action"])
            assert all(action.startswith("ec2:Describe") for action in actions)


def test_the_worker_may_do_what_the_store_module_asks() -> None:
    allowed = {action for one in statements("grafp-worker") for action in as_list(one["Action"])}
    asked = {"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket"}
    assert asked <= allowed
    [trust] = statements("trust")
    assert trust["Principal"] == {"Service": "ec2.amazonaws.com"}
