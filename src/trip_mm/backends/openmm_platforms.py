"""The platforms of OpenMM, the fastest first, and whether one works here.

A platform that is loaded need not work: OpenCL is there with its library, CUDA with its driver,
and neither needs a device for that.
"""

import openmm


def platforms_by_speed() -> list[openmm.Platform]:
    """Returns the platforms that OpenMM has loaded, the fastest first."""
    platforms = [openmm.Platform.getPlatform(i) for i in range(openmm.Platform.getNumPlatforms())]
    return sorted(platforms, key=lambda platform: -platform.getSpeed())


def load_failures() -> tuple[str, ...]:
    """Returns what OpenMM could not load when it was imported, one line each."""
    return tuple(openmm.Platform.getPluginLoadFailures())


def platform_problem(platform: openmm.Platform) -> str | None:
    """Returns why a platform cannot run a single free particle, None if it can."""
    system = openmm.System()
    system.addParticle(1.0)
    try:
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
        context.setPositions([openmm.Vec3(0, 0, 0)])
        context.getIntegrator().step(1)
    except openmm.OpenMMException as error:
        return str(error)
    return None
