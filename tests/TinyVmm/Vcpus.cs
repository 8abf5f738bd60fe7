using Fleet.TinyVmm.Vcpu;

namespace Fleet.TinyVmm.Tests;

/// <summary>Both kinds of vCPU, for tests of what they have in common.</summary>
public sealed class Vcpus : TheoryData<string>
{
    public Vcpus()
        : base(KvmVirtualCpu.KindName, SoftwareVirtualCpu.KindName)
    {
    }
}
