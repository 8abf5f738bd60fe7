namespace Fleet.Linux.Kvm;

/// <summary>Request numbers of the KVM API on x86-64 (linux/kvm.h, API version 12); checked against the header in tests.</summary>
public static class KvmIoctl
{
    public const int ApiVersion = 12;

    // On /dev/kvm.
    public const uint KVM_GET_API_VERSION = 0xae00;
    public const uint KVM_CREATE_VM = 0xae01;
    public const uint KVM_CHECK_EXTENSION = 0xae03;
    public const uint KVM_GET_VCPU_MMAP_SIZE = 0xae04;
    public const uint KVM_GET_SUPPORTED_CPUID = 0xc008ae05;
    public const uint KVM_X86_GET_MCE_CAP_SUPPORTED = 0x8008ae9d;

    // On a VM.
    public const uint KVM_CREATE_VCPU = 0xae41;
    public const uint KVM_SET_USER_MEMORY_REGION = 0x4020ae46;
    public const uint KVM_SET_TSS_ADDR = 0xae47;

    // On a vCPU.
    public const uint KVM_RUN = 0xae80;
    public const uint KVM_GET_REGS = 0x8090ae81;
    public const uint KVM_SET_REGS = 0x4090ae82;
    public const uint KVM_GET_SREGS = 0x8138ae83;
    public const uint KVM_SET_SREGS = 0x4138ae84;
    public const uint KVM_SET_SIGNAL_MASK = 0x4004ae8b;
    public const uint KVM_SET_CPUID2 = 0x4008ae90;
    public const uint KVM_X86_SETUP_MCE = 0x4008ae9c;
    public const uint KVM_X86_SET_MCE = 0x4040ae9e;

    public const int KVM_CAP_NR_MEMSLOTS = 10;
    public const int KVM_CAP_MCE = 31;
}
