"""Tables of what a step costs on many devices, beside what arithmetic says."""

from typing import NamedTuple

from jax.sharding import PartitionSpec

from benchmarks.on_paper import systems
from benchmarks.on_paper.program import NODE, Cost, Program, abstract_mesh, cost, count, mesh

WEAK, STRONG = 256, 4096  # images a device, and images of all devices
TEXTS = 64  # texts of 512 tokens for eight devices
BLOCKS = 32  # of the teacher
HEAD = (
    "| devices | batch | all-reduced MB | other MB | sent MB | GFLOP "
    "| state MB | temporary MB | efficiency |"
)


class Speeds(NamedTuple):
    """What a device reaches: FLOP/s, and bytes/s within a node and among nodes."""

    flops: float
    near: float
    far: float


def show(system: str, counts: list[int], speeds: Speeds) -> None:
    """Print all tables of a system."""
    print(f"a device reaches {speeds.flops / 1e12:g} TFLOP/s, and sends {speeds.near / 1e9:g} GB/s")
    print(f"within a node of {NODE} and {speeds.far / 1e9:g} GB/s among nodes\n")
    {"gan": gan, "distillation": distillation}[system](counts, speeds)


def gan(counts: list[int], speeds: Speeds) -> None:
    """Data parallel: with a fixed batch a device, and with a fixed global batch."""
    found = systems.GAN()
    program = Program(found, systems.gan_batch)
    sizes = [4 * count(m.trainable_variables) for m in (found.generator, found.discriminator)]
    print(f"generator {mega(sizes[0])} MB, discriminator {mega(sizes[1])} MB of weights")
    reduced, state = sizes[0] + 2 * sizes[1], 3 * sum(sizes)
    print(f"by arithmetic: all-reduced {mega(reduced)} MB, state {mega(state)} MB\n")
    for title, batch in (
        (f"{WEAK} images a device", lambda n: WEAK * n),
        (f"{STRONG} images in all", lambda n: max(STRONG, n)),
    ):
        heading(title)
        for n in counts:
            row(n, batch(n), cost(program.lower(mesh(n), batch(n))), speeds)
    program.lower(abstract_mesh(4096), WEAK * 4096)
    print("\nlowered for 4,096 devices")


def distillation(counts: list[int], speeds: Speeds) -> None:
    """The teacher is split within nodes; nodes are data parallel.

    Blocks are equal, so that what a block adds is the cost of two blocks less that of one.
    """
    few = [Program(systems.Distillation(blocks), systems.token_batch) for blocks in (1, 2)]
    heading(f"{BLOCKS} blocks, {TEXTS} texts of 512 tokens for {NODE} devices")
    for n in (n for n in counts if n >= NODE):
        batch = TEXTS * n // NODE
        costs = [cost(p.lower(mesh(n, NODE), batch, split_teacher)) for p in few]
        row(n, batch, extended(*costs, BLOCKS), speeds)


def extended(one: Cost, two: Cost, blocks: int) -> Cost:
    """Extend the costs of one and two equal blocks to more of them.

    Temporary memory is that of two blocks: a frozen teacher keeps nothing for a backward pass.
    """
    reduced = {
        kind: size + (blocks - 1) * (two.collectives[kind] - size)
        for kind, size in one.collectives.items()
    }
    more = [a + (blocks - 1) * (b - a) for a, b in zip(one[1:], two[1:], strict=True)]
    return Cost(reduced, *more)._replace(temporary=two.temporary)


def heading(title: str) -> None:
    """Print the head of a table."""
    print(f"\n{title}\n", HEAD, "| ---: " * 9 + "|", sep="\n")


def row(devices: int, batch: int, found: Cost, speeds: Speeds) -> None:
    """Print the cost of a step. The efficiency counts no overlap of products and collectives."""
    reduced = found.collectives.get("all-reduce", 0)
    other = sum(found.collectives.values()) - reduced
    compute = found.flops / speeds.flops
    sending = found.near / speeds.near + found.far / speeds.far
    cells = [
        *(f"{devices:,}", f"{batch:,}"),
        *map(mega, (reduced, other, found.near + found.far)),
        *(f"{found.flops / 1e9:,.0f}", mega(found.arguments), mega(found.temporary)),
        f"{compute / (compute + sending):.2f}",
    ]
    print("|", " | ".join(cells), "|", flush=True)


def mega(size: float) -> str:
    """Write bytes in MB, without the unit."""
    return f"{size / 1e6:,.1f}"


def split_teacher(path: str, shape: tuple[int, ...]) -> PartitionSpec:
    """Split the products of a teacher over `model` as Megatron does (arXiv 1909.08053).

    The first product of a pair is split by its outputs, the second by its inputs. The heads of
    teacher and student are split alike, so that no device holds the whole logits of a token.
    """
    is_split = "/teacher/" in path or "head" in path  # also of its optimizer
    if not is_split or len(shape) < 2:
        return PartitionSpec()
    axis = _split_axis(path, shape)
    return PartitionSpec(*("model" if i == axis else None for i in range(len(shape))))


def _split_axis(path: str, shape: tuple[int, ...]) -> int:
    second = {"attention_output": 0, "down": 0, "embeddings": 0}
    for name, axis in second.items():
        if name in path:
            return axis
    return 1
