using System.Runtime.InteropServices;
using Fleet.Linux.Kvm;
using Fleet.Tests.Shared;

namespace Fleet.Linux.Tests;

/// <summary>The KVM and signal interop against the C headers of this system.</summary>
public sealed class KvmAbiTests
{
    private static readonly string[] Headers = ["linux/kvm.h", "signal.h"];

    private static readonly Dictionary<string, ulong> Ours = new()
    {
        ["KVM_API_VERSION"] = KvmIoctl.ApiVersion,
        ["KVM_GET_API_VERSION"] = KvmIoctl.KVM_GET_API_VERSION,
        ["KVM_CREATE_VM"] = KvmIoctl.KVM_CREATE_VM,
        ["KVM_CHECK_EXTENSION"] = KvmIoctl.KVM_CHECK_EXTENSION,
        ["KVM_GET_VCPU_MMAP_SIZE"] = KvmIoctl.KVM_GET_VCPU_MMAP_SIZE,
        ["KVM_GET_SUPPORTED_CPUID"] = KvmIoctl.KVM_GET_SUPPORTED_CPUID,
        ["KVM_X86_GET_MCE_CAP_SUPPORTED"] = KvmIoctl.KVM_X86_GET_MCE_CAP_SUPPORTED,
        ["KVM_CREATE_VCPU"] = KvmIoctl.KVM_CREATE_VCPU,
        ["KVM_SET_USER_MEMORY_REGION"] = KvmIoctl.KVM_SET_USER_MEMORY_REGION,
        ["KVM_SET_TSS_ADDR"] = KvmIoctl.KVM_SET_TSS_ADDR,
        ["KVM_RUN"] = KvmIoctl.KVM_RUN,
        ["KVM_GET_REGS"] = KvmIoctl.KVM_GET_REGS,
        ["KVM_SET_REGS"] = KvmIoctl.KVM_SET_REGS,
        ["KVM_GET_SREGS"] = KvmIoctl.KVM_GET_SREGS,
        ["KVM_SET_SREGS"] = KvmIoctl.KVM_SET_SREGS,
        ["KVM_SET_SIGNAL_MASK"] = KvmIoctl.KVM_SET_SIGNAL_MASK,
        ["KVM_SET_CPUID2"] = KvmIoctl.KVM_SET_CPUID2,
        ["KVM_X86_SETUP_MCE"] = KvmIoctl.KVM_X86_SETUP_MCE,
        ["KVM_X86_SET_MCE"] = KvmIoctl.KVM_X86_SET_MCE,
        ["KVM_CAP_NR_MEMSLOTS"] = KvmIoctl.KVM_CAP_NR_MEMSLOTS,
        ["KVM_CAP_MCE"] = KvmIoctl.KVM_CAP_MCE,
        ["KVM_EXIT_IO"] = KvmRun.KVM_EXIT_IO,
        ["KVM_EXIT_HLT"] = KvmRun.KVM_EXIT_HLT,
        ["KVM_EXIT_MMIO"] = KvmRun.KVM_EXIT_MMIO,
        ["KVM_EXIT_SHUTDOWN"] = KvmRun.KVM_EXIT_SHUTDOWN,
        ["KVM_EXIT_FAIL_ENTRY"] = KvmRun.KVM_EXIT_FAIL_ENTRY,
        ["KVM_EXIT_INTERNAL_ERROR"] = KvmRun.KVM_EXIT_INTERNAL_ERROR,
        ["KVM_EXIT_IO_IN"] = KvmRun.KVM_EXIT_IO_IN,
        ["KVM_EXIT_IO_OUT"] = KvmRun.KVM_EXIT_IO_OUT,
        ["offsetof(struct kvm_run, immediate_exit)"] = Offset<KvmRun>(nameof(KvmRun.ImmediateExit)),
        ["offsetof(struct kvm_run, exit_reason)"] = Offset<KvmRun>(nameof(KvmRun.ExitReason)),
        ["offsetof(struct kvm_run, io.direction)"] = Offset<KvmRun>(nameof(KvmRun.IoDirection)),
        ["offsetof(struct kvm_run, io.size)"] = Offset<KvmRun>(nameof(KvmRun.IoSize)),
        ["offsetof(struct kvm_run, io.port)"] = Offset<KvmRun>(nameof(KvmRun.IoPort)),
        ["offsetof(struct kvm_run, io.count)"] = Offset<KvmRun>(nameof(KvmRun.IoCount)),
        ["offsetof(struct kvm_run, io.data_offset)"] = Offset<KvmRun>(nameof(KvmRun.IoDataOffset)),
        ["offsetof(struct kvm_run, mmio.phys_addr)"] = Offset<KvmRun>(nameof(KvmRun.MmioPhysicalAddress)),
        ["offsetof(struct kvm_run, mmio.data)"] = Offset<KvmRun>(nameof(KvmRun.MmioData)),
        ["offsetof(struct kvm_run, mmio.len)"] = Offset<KvmRun>(nameof(KvmRun.MmioLength)),
        ["offsetof(struct kvm_run, mmio.is_write)"] = Offset<KvmRun>(nameof(KvmRun.MmioIsWrite)),
        ["offsetof(struct kvm_run, internal.suberror)"] = Offset<KvmRun>(nameof(KvmRun.InternalSuberror)),
        ["offsetof(struct kvm_run, fail_entry.hardware_entry_failure_reason)"] = Offset<KvmRun>(nameof(KvmRun.HardwareEntryFailureReason)),
        ["sizeof(struct kvm_regs)"] = Size<KvmRegs>(),
        ["offsetof(struct kvm_regs, rbp)"] = Offset<KvmRegs>(nameof(KvmRegs.Rbp)),
        ["offsetof(struct kvm_regs, rsp)"] = Offset<KvmRegs>(nameof(KvmRegs.Rsp)),
        ["offsetof(struct kvm_regs, rip)"] = Offset<KvmRegs>(nameof(KvmRegs.Rip)),
        ["offsetof(struct kvm_regs, rflags)"] = Offset<KvmRegs>(nameof(KvmRegs.Rflags)),
        ["sizeof(struct kvm_segment)"] = Size<KvmSegment>(),
        ["offsetof(struct kvm_segment, selector)"] = Offset<KvmSegment>(nameof(KvmSegment.Selector)),
        ["offsetof(struct kvm_segment, db)"] = Offset<KvmSegment>(nameof(KvmSegment.Db)),
        ["offsetof(struct kvm_segment, unusable)"] = Offset<KvmSegment>(nameof(KvmSegment.Unusable)),
        ["sizeof(struct kvm_dtable)"] = Size<KvmDtable>(),
        ["offsetof(struct kvm_dtable, limit)"] = Offset<KvmDtable>(nameof(KvmDtable.Limit)),
        ["sizeof(struct kvm_sregs)"] = Size<KvmSregs>(),
        ["offsetof(struct kvm_sregs, ss)"] = Offset<KvmSregs>(nameof(KvmSregs.Ss)),
        ["offsetof(struct kvm_sregs, gdt)"] = Offset<KvmSregs>(nameof(KvmSregs.Gdt)),
        ["offsetof(struct kvm_sregs, idt)"] = Offset<KvmSregs>(nameof(KvmSregs.Idt)),
        ["offsetof(struct kvm_sregs, cr0)"] = Offset<KvmSregs>(nameof(KvmSregs.Cr0)),
        ["offsetof(struct kvm_sregs, cr4)"] = Offset<KvmSregs>(nameof(KvmSregs.Cr4)),
        ["offsetof(struct kvm_sregs, efer)"] = Offset<KvmSregs>(nameof(KvmSregs.Efer)),
        ["offsetof(struct kvm_sregs, apic_base)"] = Offset<KvmSregs>(nameof(KvmSregs.ApicBase)),
        ["sizeof(struct kvm_userspace_memory_region)"] = Size<KvmUserspaceMemoryRegion>(),
        ["offsetof(struct kvm_userspace_memory_region, userspace_addr)"] = Offset<KvmUserspaceMemoryRegion>(nameof(KvmUserspaceMemoryRegion.UserspaceAddress)),
        ["sizeof(struct kvm_x86_mce)"] = Size<KvmX86Mce>(),
        ["offsetof(struct kvm_x86_mce, addr)"] = Offset<KvmX86Mce>(nameof(KvmX86Mce.Address)),
        ["offsetof(struct kvm_x86_mce, misc)"] = Offset<KvmX86Mce>(nameof(KvmX86Mce.Misc)),
        ["offsetof(struct kvm_x86_mce, mcg_status)"] = Offset<KvmX86Mce>(nameof(KvmX86Mce.McgStatus)),
        ["offsetof(struct kvm_x86_mce, bank)"] = Offset<KvmX86Mce>(nameof(KvmX86Mce.Bank)),
        ["offsetof(struct kvm_cpuid2, entries)"] = KvmCpuid.HeaderBytes,
        ["sizeof(struct kvm_cpuid_entry2)"] = KvmCpuid.EntryBytes,
        ["offsetof(struct kvm_signal_mask, sigset)"] = KvmVcpu.SignalMaskHeaderBytes,
        ["SIGBUS"] = ThreadSignals.SIGBUS,
        ["SIG_BLOCK"] = ThreadSignals.SIG_BLOCK,
        ["(BUS_ADRERR)"] = ThreadSignals.BUS_ADRERR,
        ["(BUS_MCEERR_AR)"] = ThreadSignals.BUS_MCEERR_AR,
        ["(BUS_MCEERR_AO)"] = ThreadSignals.BUS_MCEERR_AO,
        ["sizeof(sigset_t)"] = ThreadSignals.SignalSetBytes,
        ["sizeof(siginfo_t)"] = Size<SignalInfo>(),
        ["offsetof(siginfo_t, si_code)"] = Offset<SignalInfo>(nameof(SignalInfo.Code)),
        ["offsetof(siginfo_t, si_addr)"] = Offset<SignalInfo>(nameof(SignalInfo.Address)),
        ["offsetof(siginfo_t, si_addr_lsb)"] = Offset<SignalInfo>(nameof(SignalInfo.AddressLsb)),
    };

    [Fact]
    public async Task KvmInterop_ComparedWithCHeaders_IsTheSame()
    {
        Requires.Gcc();
        var theirs = await CProgram.EvaluateAsync(Headers, [.. Ours.Keys]);

        // Every name here is older than the oldest headers supported, so that none may be missing from the answer.
        Assert.Equal(Ours.OrderBy(pair => pair.Key, StringComparer.Ordinal), theirs.OrderBy(pair => pair.Key, StringComparer.Ordinal));
    }

    private static ulong Size<T>()
        where T : unmanaged => (ulong)Marshal.SizeOf<T>();

    private static ulong Offset<T>(string field) => (ulong)Marshal.OffsetOf<T>(field);
}
