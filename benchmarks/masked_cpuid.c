/* Let a program see this x86-64 processor without AVX-512, AVX-VNNI and AMX: preloaded by benchmarks/without_vnni.py.

   Linux can make the instruction CPUID fault (arch_prctl(ARCH_SET_CPUID), since 4.12, where the processor or hypervisor offers
   it: `cpuid_fault` in /proc/cpuinfo). The fault executes the real instruction and clears the bits of what is newer than AVX2.
   The setting ends with exec, and threads inherit it; LD_PRELOAD brings it back in child processes. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012
#define BIT(n) (1u << (n))

typedef int set_action(int, const struct sigaction *, struct sigaction *);

static set_action *next_sigaction(void) {
  static set_action *found;
  if (!found) found = (set_action *)dlsym(RTLD_NEXT, "sigaction");
  return found;
}

/* Leaf 7 lists what came after AVX. The masks name bits as the Intel manual numbers them (volume 2A, CPUID). */
static void without_what_is_newer_than_avx2(unsigned subleaf, unsigned *a, unsigned *b, unsigned *c, unsigned *d) {
  if (subleaf == 0) {
    *b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31)); /* AVX-512 F, DQ, IFMA, ..., VL */
    *c &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14));                 /* AVX-512 VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ */
    *d &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25)); /* AVX-512 4VNNIW ... FP16, and AMX */
  } else if (subleaf == 1) {
    *a &= ~(BIT(4) | BIT(5) | BIT(21) | BIT(23)); /* AVX-VNNI, AVX512-BF16, AMX-FP16, AVX-IFMA */
    *d = 0;                                       /* AVX-VNNI-INT8, AVX-NE-CONVERT, AMX-COMPLEX, AVX10 */
  }
}

static void on_fault(int number, siginfo_t *info, void *context) {
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  const unsigned char *at = (const unsigned char *)registers[REG_RIP];
  (void)info;
  if ((greg_t)(size_t)at == 0 || at[0] != 0x0f || at[1] != 0xa2) { /* a fault of the program's own: it dies of it */
    struct sigaction usual;
    memset(&usual, 0, sizeof usual);
    usual.sa_handler = SIG_DFL;
    next_sigaction()(number, &usual, NULL);
    return;
  }
  unsigned leaf = (unsigned)registers[REG_RAX], subleaf = (unsigned)registers[REG_RCX], a, b, c, d;
  syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1UL);
  __cpuid_count(leaf, subleaf, a, b, c, d);
  syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0UL);
  if (leaf == 7) without_what_is_newer_than_avx2(subleaf, &a, &b, &c, &d);
  registers[REG_RAX] = a;
  registers[REG_RBX] = b;
  registers[REG_RCX] = c;
  registers[REG_RDX] = d;
  registers[REG_RIP] += 2;
}

/* Python's faulthandler and others would take the signal away. */
int sigaction(int number, const struct sigaction *action, struct sigaction *old) {
  return next_sigaction()(number, number == SIGSEGV ? NULL : action, old);
}

__attribute__((constructor)) static void begin(void) {
  static const char refused[] = "this system cannot make CPUID fault: see benchmarks/without_vnni.py\n";
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
  next_sigaction()(SIGSEGV, &action, NULL);
  if (syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0UL) && write(2, refused, sizeof refused - 1)) _exit(2);
}
