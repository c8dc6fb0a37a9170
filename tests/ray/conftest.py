from tests.ray.machines import machines

__all__ = ["machines"]
