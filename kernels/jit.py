"""How kernels are compiled: for which CPU, and with which options of Numba."""

from collections import Counter
from functools import cache
from typing import NamedTuple

from llvmlite.binding import Linkage, parse_assembly
from llvmlite.ir import IRBuilder
from llvmlite.ir.instructions import InsertValue
from numba import njit, types
from numba.core import ir, typed_passes, untyped_passes
from numba.core.callconv import CPUCallConv
from numba.core.cgutils import alloca_once
from numba.core.codegen import JITCodeLibrary, JITCPUCodegen
from numba.core.compiler import Compiler, compile_result
from numba.core.compiler_machinery import register_pass
from numba.core.cpu import CPUContext
from numba.core.datamodel import models, register_default
from numba.core.ir_utils import build_definitions, rename_labels
from numba.core.lowering import Lower
from numba.core.registry import cpu_target
from numba.core.ssa import reconstruct_ssa
from numba.core.typing import Context

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


def _link(module, libraries):
    """Link libraries into a module, and all that they call, each of them once.

    Numba would link what a function calls into it, and both into each of its callers, again and
    again on the way up.
    """
    linked, waiting = set(), [*libraries]
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


class _EntryLibrary(_Library):
    """The code of functions that Python calls and of all that they call, and its form on disk."""

    def finalize(self):
        _link(self._final_module, self._linking_libraries)
        self._linking_libraries = []
        super().finalize()

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
        wrappers = [f.name for f in self.get_defined_functions() if _is_wrapper(f)]
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
        module = self._final_module.clone()
        _link(module, self._linking_libraries)
        return module


class _InnerCodegen(_Codegen):
    """Makes no machine code, which nobody would run: it took a fifth of the time to compile."""

    _library_class = _InnerLibrary

    def set_env(self, name, environment):
        pass


def _is_wrapper(function):
    """Whether Python calls the function, with Python objects."""
    return "cpython" in function.name


class _CalledLibrary(_InnerLibrary):
    """The same, of a function that Python calls, before it comes together with others."""

    def _offer(self, function):
        if not _is_wrapper(function):
            super()._offer(function)


class _CalledCodegen(_InnerCodegen):
    _library_class = _CalledLibrary


class _SharedLibrary(_InnerLibrary):
    """The same, of a function that stays one: its callers call it."""

    def _offer(self, function):
        super()._offer(function)
        function.add_function_attribute("noinline")


class _SharedCodegen(_InnerCodegen):
    _library_class = _SharedLibrary


class _Calls(CPUCallConv):
    """Numba's way to call functions, for those that have no ``try``."""

    def check_try_status(self, builder):
        pass

    def return_status_propagate(self, builder, status):
        builder.store(status.excinfoptr, self._get_excinfo_argument(builder.function))
        self._return_errcode_raw(builder, status.code)


class _Context(CPUContext):
    """Numba's context of compilation, with another codegen."""

    def __init__(self, codegen):
        vars(self).update(vars(cpu_target.target_context))
        self._internal_codegen = codegen("fastnn")
        self.cached_internal_func = {}

    @property
    def call_conv(self):
        return _Calls(self)

    def get_function(self, fn, sig, _firstcall=True):
        # Numba asks whether an array is to be taken for another one each time that it is used, and
        # then goes through all of its registries.
        if fn == "__array__":
            raise NotImplementedError
        return super().get_function(fn, sig, _firstcall)


@cache
def _context(codegen):
    """The context for a codegen; made when it is first used."""
    return _Context(codegen)


class Function(NamedTuple):
    """What there is to know of a function that Python calls, beside its machine code."""

    description: object  # Numba's, of its names and types
    environment: object  # constants that are Python objects
    signature: object


def machine_code(name, results):
    """Machine code for functions that Python calls, from what Numba made of each: a library."""
    library = _context(_EntryCodegen).codegen().create_library(name)
    library.enable_object_caching()
    for result in results:
        library.add_linking_library(result.library)
    library.finalize()
    return library


def load_machine_code(serialized):
    """A library from what its ``serialize_using_object_code`` returned."""
    return _context(_EntryCodegen).codegen().unserialize_library(serialized)


def add_function(dispatcher, library, function):
    """Let a dispatcher, what Python calls, run the function of a library."""
    context = _context(_EntryCodegen)
    description, environment, signature = function
    # Numba's own way from files would first import all that it needs to compile, which takes far
    # longer.
    result = compile_result(
        signature=signature,
        entry_point=context.get_executable(library, description, environment),
        library=library,
        fndesc=description,
        environment=environment,
        target_context=context,
        objectmode=False,
    )
    dispatcher.add_overload(result)


# Passes of Numba that kernels do without: they have no closures, comprehensions, with blocks,
# array expressions, literally, raise or prange, and dead branches are left to LLVM. Each pass goes
# through the whole function, and many of them analyse it anew.
_IDLE = {
    # Both say where variables end, for those that own what they refer to.
    typed_passes.IRLegalization,
    untyped_passes.IRProcessing,
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


class _Operation(types.Function):
    """One of Numba's own functions, which looks up the types of a call once.

    Numba goes through all that an operator may mean for each time that it is used, twice.
    """

    def __init__(self, templates):
        super().__init__(templates)
        self._known = {}

    def get_call_type(self, context, args, kws):
        if kws:
            return super().get_call_type(context, args, kws)
        args = tuple(args)
        if args not in self._known:
            self._known[args] = super().get_call_type(context, args, kws)
        return self._known[args]


register_default(_Operation)(models.OpaqueModel)


class _Typing(Context):
    """Numba's context of typing, for which operations are known.

    And for which numbers in the code are variables, where a kernel calls another: it would be
    compiled anew for each number.
    """

    def __init__(self):
        vars(self).update(vars(cpu_target.typing_context))
        self._operations = {}

    def resolve_value_type(self, val):
        found = super().resolve_value_type(val)
        if type(found) is types.Function:
            found = self._operations.setdefault(found, _Operation(found.templates))
        return found

    def resolve_function_type(self, func, args, kws):
        if isinstance(func, types.Dispatcher):
            args = tuple(map(types.unliteral, args))
        return super().resolve_function_type(func, args, kws)


@cache
def _typing(flags):
    """For functions with these flags, which what they call takes over from them."""
    return _Typing()


class _Builder(IRBuilder):
    """A builder of LLVM code that remembers what it has put into a tuple or an array."""

    def extract_value(self, agg, idx, name=""):
        indices = [idx] if isinstance(idx, int) else [*idx]
        whole = agg
        while isinstance(whole, InsertValue) and len(whole.indices) == len(indices):
            if whole.indices == indices:
                return whole.value
            whole = whole.aggregate
        return super().extract_value(agg, idx, name)


class _Lower(Lower):
    """Numba's way from its code to LLVM's, with values in place of variables on the stack.

    Numba keeps each variable that another block uses on the stack, tuples of arrays too, for LLVM
    to find out number by number that it need not be there.
    """

    _disable_sroa_like_opt = False  # debuggers do not see kernels

    def __init__(self, context, library, fndesc, func_ir, metadata=None):
        func_ir.blocks = rename_labels(func_ir.blocks)  # what sets a variable before what uses it
        super().__init__(context, library, fndesc, func_ir, metadata)

    def setup_function(self, fndesc):
        super().setup_function(fndesc)
        self.builder = _Builder(self.entry_block)
        self.call_helper = self.call_conv.init_call_helper(self.builder)

    def _find_singly_assigned_variable(self):
        assigned = Counter(
            statement.target.name
            for block in self.blocks.values()
            for statement in block.find_insts(ir.Assign)
        )
        self._singly_assigned_vars = {name for name, times in assigned.items() if times == 1}
        self._blk_local_varmap = {}

    def storevar(self, value, name, argidx=None):
        if name in self._singly_assigned_vars:
            self._blk_local_varmap[name] = value
        else:
            self.builder.store(value, self.getvar(name))

    def alloca_lltype(self, name, lltype, datamodel=None):
        return alloca_once(self.builder, lltype, name=name)


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(typed_passes.NativeLowering):
    """Turns Numba's code into LLVM's."""

    _name = "fastnn_lowering"

    @property
    def lowering_class(self):
        return _Lower


@register_pass(mutates_CFG=True, analysis_only=False)
class _Renaming(untyped_passes.ReconstructSSA):
    """Gives each value of a variable a name of its own."""

    _name = "fastnn_renaming"

    def run_pass(self, state):
        state.func_ir = reconstruct_ssa(state.func_ir)
        state.func_ir._definitions = build_definitions(state.func_ir.blocks)
        return True


@register_pass(mutates_CFG=False, analysis_only=False)
class _Stripping(typed_passes.PreLowerStripPhis):
    """Lets the blocks before a join set the variable that the join would choose."""

    _name = "fastnn_stripping"

    def run_pass(self, state):
        state.func_ir = self._strip_phi_nodes(state.func_ir)
        return True


# What takes the place of passes of Numba. It also looks where variables end, after each of them.
_INSTEAD = {
    untyped_passes.ReconstructSSA: _Renaming,
    typed_passes.PreLowerStripPhis: _Stripping,
    typed_passes.NativeLowering: _Lowering,
}


class _Compiler(Compiler):
    """Numba's pipeline, without what kernels do not need of it."""

    def __init__(self, typing_context, target_context, *arguments):
        super().__init__(typing_context, target_context, *arguments)
        state = self.state
        state.typingctx = state.targetctx.typing_context = _typing(state.flags)

    def define_pipelines(self):
        (pipeline,) = super().define_pipelines()
        pipeline.passes = [
            (_INSTEAD.get(step[0], step[0]), step[1])
            for step in pipeline.passes
            if step[0] not in _IDLE
        ]
        pipeline.finalize()
        return [pipeline]


class EntryCompiler(_Compiler):
    """Numba's pipeline for the functions that Python calls."""

    def __init__(self, typing_context, target_context, *arguments):
        super().__init__(typing_context, _context(_CalledCodegen), *arguments)


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
