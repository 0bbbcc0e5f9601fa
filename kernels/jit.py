"""How kernels are compiled: for which CPU, and with which options of Numba."""

from functools import cache

from llvmlite.binding import Linkage, parse_assembly
from numba import njit
from numba.core.codegen import JITCodeLibrary, JITCPUCodegen
from numba.core.compiler import Compiler
from numba.core.registry import cpu_target

from .machine import CPU_FEATURES, CPU_NAME


class _Codegen(JITCPUCodegen):
    """Numba's compiler of LLVM code, for the level of this machine instead of its very CPU."""

    def _get_host_cpu_name(self):
        return CPU_NAME

    def _get_host_cpu_features(self):
        return CPU_FEATURES


class _Library(JITCodeLibrary):
    """The code of a kernel, which is optimised with all that it calls, once, in an entry point."""

    def _optimize_functions(self, ll_module):
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self):
        pass


class _EntryLibrary(_Library):
    """The code of a function that Python calls, and its form on disk."""

    def _optimize_final_module(self):
        # No one else calls what is in it: what is not needed of its arguments need not be passed.
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage != Linkage.external:
                function.linkage = Linkage.internal
        passes, builder = self._codegen._module_pass_manager()
        passes.run(self._final_module, builder)

    def serialize_using_object_code(self):
        """Machine code alone, with the names of what Python calls in it.

        Numba adds LLVM code, for other functions to link: they do not call entry points.
        """
        self._ensure_finalized()
        wrappers = [f.name for f in self.get_defined_functions() if "cpython" in f.name]
        stubs = "".join(f'define void @"{name}"() {{ unreachable }}\n' for name in wrappers)
        return (
            self.name,
            "object",
            (self._get_compiled_object(), parse_assembly(stubs).as_bitcode()),
        )


class _EntryCodegen(_Codegen):
    _library_class = _EntryLibrary


class _InnerLibrary(_Library):
    """The code of a function that only compiled ones call: they link it, as LLVM code."""

    def _finalize_specific(self):
        pass


class _InnerCodegen(_Codegen):
    """Makes no machine code, which nobody would run: it took a fifth of the time to compile."""

    _library_class = _InnerLibrary

    def _add_module(self, module):
        pass

    def set_env(self, name, environment):
        pass


class _SharedLibrary(_InnerLibrary):
    """The same, of a function that stays one: its callers call it."""

    def _optimize_functions(self, ll_module):
        super()._optimize_functions(ll_module)
        for function in ll_module.functions:
            if not function.is_declaration and function.linkage == Linkage.external:
                function.add_function_attribute("noinline")


class _SharedCodegen(_InnerCodegen):
    _library_class = _SharedLibrary


@cache
def _context(codegen):
    """Numba's context of compilation, with another codegen; made when it is first used."""
    return cpu_target.target_context.subtarget(_internal_codegen=codegen("fastnn"))


def entry_context():
    """The context in which entry points are compiled, and into which they are loaded."""
    return _context(_EntryCodegen)


class EntryCompiler(Compiler):
    """Numba's pipeline for the functions that Python calls."""

    def __init__(self, typing_context, target_context, *arguments):
        super().__init__(typing_context, entry_context(), *arguments)


class InnerCompiler(Compiler):
    """Numba's pipeline for all other functions.

    Functions of the user may call them, and are compiled by Numba as ever: they link them too.
    """

    codegen = _InnerCodegen

    def __init__(self, typing_context, target_context, *arguments):
        super().__init__(typing_context, _context(self.codegen), *arguments)


class SharedCompiler(InnerCompiler):
    """Numba's pipeline for those that stay functions."""

    codegen = _SharedCodegen


# contract: fused multiply-add; reassoc: sums may use vector lanes; nsz: the sign of zero is free.
# NaN and infinity keep their meaning. error_model: division by zero gives inf, as in NumPy.
FLAGS = {"fastmath": {"contract", "reassoc", "nsz"}, "error_model": "numpy", "nogil": True}
# For formulas whose rounding steps matter: no reassociation.
EXACT = {**FLAGS, "fastmath": {"contract"}}

# No kernel allocates. The caller owns all arrays for as long as a kernel runs, so that kernels need
# not count who uses one: counting took a third of the time of training on single examples.
_OWNS_NOTHING = {"_nrt": False}
# Functions that only kernels call have no way in from Python, which took a third of the time to
# compile. From Python, call them through an njit function.
_INNER = {
    "pipeline_class": InnerCompiler,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    **_OWNS_NOTHING,
}
# Part of its caller: no call, whose arguments are every field of every array, and nothing to count.
LEAF = {"forceinline": True, **_INNER}
leaf = njit(**LEAF, **FLAGS)
# Part of its caller before types are inferred: for pieces of a large function that take its tuples
# of arrays, as a leaf's arguments are taken apart and put together again for each call; and for
# what returns an array, which a leaf cannot. In one another, Numba copies them again and again.
section = njit(inline="always", **_INNER, **FLAGS)
# One copy that all callers share: for what is large and called from several places.
# Without a word on it, what a leaf calls would be a leaf as well.
shared = njit(**{**_INNER, "pipeline_class": SharedCompiler}, forceinline=False, **FLAGS)
exact = njit(**_INNER, **EXACT)
exact_leaf = njit(**LEAF, **EXACT)
# Called by Python.
entry = njit(pipeline_class=EntryCompiler, no_cfunc_wrapper=True, **_OWNS_NOTHING, **FLAGS)
