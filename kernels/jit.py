"""How kernels are compiled: for which CPU, and with which options of Numba."""

from functools import cache

from llvmlite.binding import Linkage, parse_assembly
from numba import njit
from numba.core import typed_passes, untyped_passes
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

    def finalize(self):
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage == Linkage.external:
                self._offer(function)
        self._finalized = True

    def _offer(self, function):
        """Let a function be linked into its callers."""
        function.linkage = Linkage.linkonce_odr

    def _get_module_for_linking(self):
        # Numba would link what a function calls into it, and both into each of its callers, again
        # and again on the way up: here, all that an entry point calls comes together once.
        module, linked, waiting = self._final_module.clone(), {self}, [*self._linking_libraries]
        while waiting:
            library = waiting.pop(0)
            if library in linked:
                continue
            linked.add(library)
            if isinstance(library, _InnerLibrary):
                module.link_in(library._final_module, preserve=True)
                waiting += library._linking_libraries
            else:
                module.link_in(library._get_module_for_linking(), preserve=True)
        return module


class _InnerCodegen(_Codegen):
    """Makes no machine code, which nobody would run: it took a fifth of the time to compile."""

    _library_class = _InnerLibrary

    def set_env(self, name, environment):
        pass


class _SharedLibrary(_InnerLibrary):
    """The same, of a function that stays one: its callers call it."""

    def _offer(self, function):
        super()._offer(function)
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


# Passes of Numba that kernels do without: they have no closures, comprehensions, with blocks,
# array expressions, literally, raise or prange, and dead branches are left to LLVM. Each pass goes
# through the whole function, and many of them analyse it anew.
_IDLE = {
    untyped_passes.WithLifting,
    untyped_passes.InlineClosureLikes,
    untyped_passes.RewriteDynamicRaises,
    untyped_passes.MakeFunctionToJitFunction,
    untyped_passes.FindLiterallyCalls,
    untyped_passes.LiteralUnroll,
    untyped_passes.LiteralPropagationSubPipelinePass,
    untyped_passes.RewriteSemanticConstants,
    untyped_passes.DeadBranchPrune,
    typed_passes.InlineOverloads,
    typed_passes.NopythonRewrites,
    typed_passes.NoPythonSupportedFeatureValidation,
    typed_passes.DumpParforDiagnostics,
}


class _Compiler(Compiler):
    """Numba's pipeline, without what kernels do not need of it."""

    def define_pipelines(self):
        (pipeline,) = super().define_pipelines()
        pipeline.passes = [step for step in pipeline.passes if step[0] not in _IDLE]
        pipeline.finalize()
        return [pipeline]


class EntryCompiler(_Compiler):
    """Numba's pipeline for the functions that Python calls."""

    def __init__(self, typing_context, target_context, *arguments):
        super().__init__(typing_context, entry_context(), *arguments)


class InnerCompiler(_Compiler):
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
