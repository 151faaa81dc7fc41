"""From kernel IR to machine code: detection of the CPU, emission of LLVM IR, objects and the process's JIT."""
