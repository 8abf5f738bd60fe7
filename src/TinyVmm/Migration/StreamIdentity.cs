using System.Security.Cryptography;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Linux.Processes;
using Fleet.TinyVmm.Guest;
using Fleet.TinyVmm.Memory;

namespace Fleet.TinyVmm.Migration;

/// <summary>Who this VMM is to a stream.</summary>
internal sealed class StreamIdentity(string vm, string vcpu, GuestProgram program, GuestMemory memory)
{
    /// <summary>This VMM's process, as <see cref="VmmInstanceText"/> forms it.</summary>
    public static string Instance { get; } = InstanceOfThisProcess();

    public StreamHeader Header { get; } = new(
        StreamHeader.CurrentVersion,
        vm,
        vcpu,
        Convert.ToHexStringLower(SHA256.HashData(program.Code)),
        [.. memory.Regions.Select(region => new StreamRegion(HexAddress.Format(region.Range.GuestPhysicalAddress), (long)region.Range.Bytes))]);

    /// <exception cref="StreamException">The stream is not meant for this VMM.</exception>
    public void Check(StreamHeader stream)
    {
        if (stream.Version != Header.Version)
        {
            throw new StreamException(StreamException.Malformed, $"stream version {stream.Version}, not {Header.Version}");
        }

        if (stream.Vm != Header.Vm)
        {
            throw new StreamException(StreamException.WrongVm, "the stream is that of another VM");
        }

        if (stream.Vcpu != Header.Vcpu)
        {
            throw new StreamException(StreamException.VcpuMismatch, $"the target's vCPU is {Header.Vcpu}, and cannot take the state of another kind");
        }

        if (stream.Program != Header.Program)
        {
            throw new StreamException(StreamException.ProgramMismatch, "the guest's program is another");
        }

        if (stream.Regions is null || !stream.Regions.SequenceEqual(Header.Regions))
        {
            throw new StreamException(StreamException.LayoutMismatch, "the guest's RAM lies otherwise");
        }
    }

    private static string InstanceOfThisProcess()
    {
        var self = ProcessIdentity.Of(Environment.ProcessId) ?? throw new InvalidOperationException("this process is not in /proc");
        return VmmInstanceText.Of(self.BootId, self.Pid, self.StartTime);
    }
}
