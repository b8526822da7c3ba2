// The CUDA runtime and driver on the memory of the host: the functions that CuPy's Cython modules call, in place of the
// real ones. A kernel is a function compiled by g++, and runs when it is launched. The threads of a block are fibers,
// one of which runs until its next barrier; then the next one has its turn.
#include <Python.h>
#include <csetjmp>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <map>
#include <string>
#include <ucontext.h>
#include <vector>
#include <xmmintrin.h>

struct Triple { unsigned x, y, z; };
extern "C" {
Triple cpu_threadIdx, cpu_blockIdx, cpu_blockDim, cpu_gridDim;  // what kernel.h calls threadIdx and so on
char* cpu_dynamic_shared;
}

// ---- Counts

static std::map<std::string, long long> kernels;
static long long to_host, to_device, waits;

// ---- Fibers

enum State { IDLE, READY, AT_WARP, AT_BLOCK };
struct Fiber { ucontext_t start; jmp_buf place; bool started; State state; std::vector<char> stack, shown; };
static std::vector<Fiber> fibers(1024);
static unsigned current, count;      // the fiber that runs, and the threads of the block
static jmp_buf scheduler;
static ucontext_t outside;
static void (*function)(void**);
static void** parameters;

static void wait(State state) {
  fibers[current].state = state;
  if (!_setjmp(fibers[current].place)) _longjmp(scheduler, 1);
}

static void live() {
  for (;;) {
    function(parameters);
    wait(IDLE);
  }
}

static void let_run(unsigned number) {
  Fiber& fiber = fibers[current = number];
  unsigned width = cpu_blockDim.x, height = cpu_blockDim.y;
  cpu_threadIdx = {number % width, number / width % height, number / width / height};
  if (_setjmp(scheduler)) return;
  if (fiber.started) _longjmp(fiber.place, 1);
  fiber.started = true;
  fiber.stack.resize(64 << 10);
  getcontext(&fiber.start);
  fiber.start.uc_stack.ss_sp = fiber.stack.data();
  fiber.start.uc_stack.ss_size = fiber.stack.size();
  makecontext(&fiber.start, live, 0);
  swapcontext(&outside, &fiber.start);
}

static bool release(unsigned first, unsigned end, State from) {  // if all that still run have come to this barrier
  bool some = false;
  for (unsigned i = first; i < end; i++) {
    if (fibers[i].state == IDLE) continue;
    if (fibers[i].state != from) return false;
    some = true;
  }
  for (unsigned i = first; i < end; i++)
    if (fibers[i].state == from) fibers[i].state = READY;
  return some;
}

static bool run_block() {  // false: threads wait for each other forever, as they would on a GPU
  for (unsigned i = 0; i < count; i++) fibers[i].state = READY;
  for (;;) {
    for (unsigned i = 0; i < count; i++)
      if (fibers[i].state == READY) let_run(i);
    bool going = release(0, count, AT_BLOCK), left = false;
    for (unsigned i = 0; i < count; i += 32) going |= release(i, i + 32 < count ? i + 32 : count, AT_WARP);
    for (unsigned i = 0; i < count; i++) left |= fibers[i].state != IDLE;
    if (!left) return true;
    if (!going) return false;
  }
}

extern "C" void cpu_sync_block() { wait(AT_BLOCK); }
extern "C" void cpu_sync_warp() { wait(AT_WARP); }
extern "C" void cpu_shuffle(const void* own, void* found, size_t size, unsigned lane) {
  unsigned from = current / 32 * 32 + lane;
  fibers[current].shown.assign((const char*)own, (const char*)own + size);
  cpu_sync_warp();
  if (from >= count || fibers[from].shown.size() != size) from = current;
  memcpy(found, fibers[from].shown.data(), size);
  cpu_sync_warp();
}

// ---- The driver

struct Kernel { void (*function)(void**); int kind; std::string name; };
enum Kind { PLAIN, LOOP, FIBERS };  // LOOP: one thread does the work of all; FIBERS: there are barriers

static PyObject* nothing() { Py_RETURN_NONE; }

static PyObject* failed(const char* message) {
  PyErr_SetString(PyExc_RuntimeError, message);
  return nullptr;
}

static PyObject* launch(intptr_t pointer, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                        unsigned shared, intptr_t, intptr_t arguments, intptr_t, int) {
  Kernel& kernel = *(Kernel*)pointer;
  kernels[kernel.name]++;
  count = bx * by * bz;
  if (count > fibers.size()) return failed("more than 1024 threads in a block");
  unsigned mode = _mm_getcsr();
  _mm_setcsr(mode | 0x8040);  // denormal numbers are 0, as CuPy compiles its kernels (-ftz=true)
  std::vector<char> dynamic(shared + 16);
  cpu_dynamic_shared = dynamic.data();
  function = kernel.function, parameters = (void**)arguments;
  cpu_threadIdx = {0, 0, 0}, cpu_blockDim = {bx, by, bz}, cpu_gridDim = {gx, gy, gz};
  bool meet = true;
  if (kernel.kind == LOOP) {
    cpu_blockIdx = {0, 0, 0}, cpu_blockDim = cpu_gridDim = {1, 1, 1};
    function(parameters);
  } else {
    for (unsigned block = 0; block < gx * gy * gz; block++) {
      cpu_blockIdx = {block % gx, block / gx % gy, block / gx / gy};
      if (kernel.kind == FIBERS) { meet = meet && run_block(); continue; }
      for (unsigned i = 0; i < count; i++) {
        cpu_threadIdx = {i % bx, i / bx % by, i / bx / by};
        function(parameters);
      }
    }
  }
  _mm_setcsr(mode);
  return meet ? nothing() : failed("the threads of a block do not meet at a barrier");
}

static intptr_t load_module(PyObject* path, int) {
  void* library = dlopen(PyBytes_AsString(path), RTLD_NOW | RTLD_LOCAL);
  if (!library) failed(dlerror());
  return (intptr_t)library;
}

static intptr_t get_function(intptr_t library, PyObject* name, int) {
  std::string text = PyUnicode_AsUTF8(name);
  void* found = dlsym((void*)library, ("cpu_call_" + text).c_str());
  int* kind = (int*)dlsym((void*)library, "cpu_kind");
  if (!found || !kind) return failed(dlerror()), 0;
  return (intptr_t) new Kernel{(void (*)(void**))found, *kind, text};
}

// ---- The runtime

static thread_local int device;
static const int DEVICES = 2;  // without access to each other's memory

static int get_device(int) { return device; }
static int device_count(int) { return DEVICES; }
static PyObject* set_device(int number, int) {
  if (number < 0 || number >= DEVICES) return failed("cudaErrorInvalidDevice: invalid device ordinal");
  device = number;
  return nothing();
}
static int attribute(int name, int, int) {  // compute capability 9.0, 132 multiprocessors, blocks of 1024 threads
  static const std::map<int, int> known = {{1, 1024}, {2, 1024}, {3, 1024}, {4, 64}, {5, 2147483647}, {6, 65535},
    {7, 65535}, {8, 49152}, {10, 32}, {16, 132}, {39, 2048}, {75, 9}};
  return known.count(name) ? known.at(name) : 0;
}

static intptr_t allocate(size_t size, int) {
  size = (size + 511) / 512 * 512 + 512;
  void* memory = aligned_alloc(512, size);
  if (!memory) return PyErr_NoMemory(), 0;
  return (intptr_t)memset(memory, 0xCB, size);  // whoever reads before he writes shall see it
}
static intptr_t allocate_async(size_t size, intptr_t, int) { return allocate(size, 0); }
static intptr_t allocate_host(size_t size, unsigned, int) { return allocate(size, 0); }
static PyObject* release_memory(intptr_t memory, int) { free((void*)memory); return nothing(); }
static PyObject* release_async(intptr_t memory, intptr_t, int) { return release_memory(memory, 0); }

static PyObject* copy(intptr_t to, intptr_t from, size_t size, int kind, int) {
  to_device += kind == 1, to_host += kind == 2;
  memmove((void*)to, (void*)from, size);
  return nothing();
}
static PyObject* copy_async(intptr_t to, intptr_t from, size_t size, int kind, intptr_t, int) { return copy(to, from, size, kind, 0); }
static PyObject* copy_peer(intptr_t to, int, intptr_t from, int, size_t size, int) { return copy(to, from, size, 3, 0); }
static PyObject* copy_peer_async(intptr_t to, int, intptr_t from, int, size_t size, intptr_t, int) { return copy(to, from, size, 3, 0); }
static PyObject* fill(intptr_t memory, int value, size_t size, int) { memset((void*)memory, value, size); return nothing(); }
static PyObject* fill_async(intptr_t memory, int value, size_t size, intptr_t, int) { return fill(memory, value, size, 0); }
static PyObject* free_memory(int) { return Py_BuildValue("(nn)", (Py_ssize_t)70 << 30, (Py_ssize_t)80 << 30); }

static PyObject* synchronize(int) { waits++; return nothing(); }
static PyObject* synchronize_with(intptr_t, int) { return synchronize(0); }
static intptr_t handle() { return 0x1000; }  // of a stream or an event: there is but one order of work
static PyObject* properties(int, int) {
  return Py_BuildValue("{sysisisisisisi}", "name", "the CPU", "warpSize", 32, "major", 9, "minor", 0, "maxThreadsPerBlock",
                       1024, "multiProcessorCount", 132, "sharedMemPerBlock", 49152);
}
static int zero() { return 0; }
static int version(int) { return 12090; }
static int function_attribute(int, intptr_t, int) { return 1024; }
static int occupancy(intptr_t, int, size_t, int) { return 2; }
static intptr_t context(int) { return 1; }
static float elapsed(intptr_t, intptr_t, int) { return 0; }

// ---- Putting it in place

static const std::map<std::string, void*> RUNTIME = {
  {"_ensure_context", (void*)nothing}, {"getDevice", (void*)get_device}, {"setDevice", (void*)set_device},
  {"getDeviceCount", (void*)device_count}, {"deviceGetAttribute", (void*)attribute}, {"malloc", (void*)allocate},
  {"free", (void*)release_memory}, {"mallocAsync", (void*)allocate_async}, {"freeAsync", (void*)release_async},
  {"hostAlloc", (void*)allocate_host}, {"freeHost", (void*)release_memory}, {"memcpy", (void*)copy},
  {"memcpyAsync", (void*)copy_async}, {"memcpyPeer", (void*)copy_peer}, {"memcpyPeerAsync", (void*)copy_peer_async},
  {"memset", (void*)fill}, {"memsetAsync", (void*)fill_async}, {"memGetInfo", (void*)free_memory},
  {"deviceSynchronize", (void*)synchronize}, {"streamSynchronize", (void*)synchronize_with},
  {"eventSynchronize", (void*)synchronize_with}, {"streamCreate", (void*)handle}, {"streamDestroy", (void*)nothing},
  {"streamCreateWithFlags", (void*)handle}, {"streamCreateWithPriority", (void*)handle}, {"streamQuery", (void*)nothing},
  {"streamWaitEvent", (void*)nothing}, {"streamIsCapturing", (void*)zero}, {"eventCreate", (void*)handle},
  {"eventCreateWithFlags", (void*)handle}, {"eventDestroy", (void*)nothing}, {"eventRecord", (void*)nothing},
  {"eventQuery", (void*)nothing}, {"eventElapsedTime", (void*)elapsed}, {"deviceCanAccessPeer", (void*)zero},
  {"_deviceEnsurePeerAccess", (void*)nothing}, {"runtimeGetVersion", (void*)version}, {"driverGetVersion", (void*)version},
  {"getDeviceProperties", (void*)properties}, {"pointerGetMemoryType", (void*)zero}, {"hostRegister", (void*)nothing},
  {"hostUnregister", (void*)nothing}};
static const std::map<std::string, void*> DRIVER = {
  {"launchKernel", (void*)launch}, {"moduleLoadData", (void*)load_module}, {"moduleUnload", (void*)nothing},
  {"moduleGetFunction", (void*)get_function}, {"ctxGetCurrent", (void*)context}, {"ctxSetCurrent", (void*)nothing},
  {"ctxGetDevice", (void*)get_device}, {"funcGetAttribute", (void*)function_attribute},
  {"funcSetAttribute", (void*)nothing}, {"occupancyMaxActiveBlocksPerMultiprocessor", (void*)occupancy}};

static bool put(PyObject* table, const std::map<std::string, void*>& functions) {
  for (auto& [name, function] : functions) {
    PyObject* real = PyDict_GetItemString(table, name.c_str());  // a capsule, whose name is the function's signature
    if (!real) return failed(("CuPy has no " + name).c_str());
    Py_INCREF(real);
    PyDict_SetItemString(table, name.c_str(), PyCapsule_New(function, PyCapsule_GetName(real), nullptr));
  }
  return true;
}

static PyObject* install(PyObject*, PyObject* tables) {
  bool done = put(PyTuple_GetItem(tables, 0), RUNTIME) && put(PyTuple_GetItem(tables, 1), DRIVER);
  return done ? nothing() : nullptr;
}
static PyObject* counts(PyObject*, PyObject*) {  // since the last call: {name of a kernel: launches}, and the copies
  PyObject* launches = PyDict_New();
  for (auto& [name, number] : kernels) PyDict_SetItemString(launches, name.c_str(), PyLong_FromLongLong(number));
  PyObject* all = Py_BuildValue("NLLL", launches, to_host, to_device, waits);
  kernels.clear();
  to_host = to_device = waits = 0;
  return all;
}
static PyObject* note(PyObject*, PyObject* name) { kernels[PyUnicode_AsUTF8(name)]++; return nothing(); }
static PyObject* py_get_device(PyObject*, PyObject*) { return PyLong_FromLong(device); }
static PyObject* py_set_device(PyObject*, PyObject* number) { return set_device((int)PyLong_AsLong(number), 0); }
static PyObject* py_synchronize(PyObject*, PyObject*) { return synchronize(0); }
static PyObject* py_properties(PyObject*, PyObject*) { return properties(0, 0); }
static PyMethodDef methods[] = {
  {"install", install, METH_VARARGS, ""}, {"counts", counts, METH_NOARGS, ""}, {"note", note, METH_O, ""},
  {"get_device", py_get_device, METH_NOARGS, ""}, {"set_device", py_set_device, METH_O, ""},
  {"synchronize", py_synchronize, METH_NOARGS, ""}, {"properties", py_properties, METH_O, ""}, {nullptr}};
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "device", "", -1, methods};
PyMODINIT_FUNC PyInit_device() { return PyModule_Create(&definition); }
