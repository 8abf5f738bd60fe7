using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Fleet.Linux;
using Fleet.Linux.Kvm;
using Fleet.Linux.Memory;
using Fleet.TinyVmm.Events;
using Fleet.TinyVmm.Guest;
using Fleet.TinyVmm.Memory;

namespace Fleet.TinyVmm.Vcpu;

/// <summary>
/// A vCPU without /dev/kvm: it does what the guest's program would do, with loads and stores through the kernel (process_vm_readv and
/// process_vm_writev on this process). A poisoned page is an error, and becomes a machine check; a trapped page blocks.
/// </summary>
public sealed class SoftwareVirtualCpu : VirtualCpu
{
    public const string KindName = "software";

    private readonly byte[] _page = new byte[MemoryLayout.PageBytes];
    private readonly GuestMemory _memory;
    private readonly EventQueue _events;
    private readonly GuestProgram _program;

    internal SoftwareVirtualCpu(GuestMemory memory, EventQueue events, GuestProgram program, bool paused)
        : base(paused)
    {
        (_memory, _events, _program) = (memory, events, program);
        Start();
    }

    public override string Kind => KindName;

    protected override bool Step() => WaitForCommand() is { } command && IsProgramIntact() && Execute(command);

    private bool Execute(CommandRun command)
    {
        while (command.Advance())
        {
            var (address, end) = (command.Address, command.Address + ((ulong)command.Count * sizeof(uint)));
            var result = command.Value;
            while (address < end)
            {
                // One page at a time: the first access to a page is the one that fails.
                var length = Math.Min(MemoryLayout.PageBytes - (address % MemoryLayout.PageBytes), end - address);
                if (!ParkWhileAsked())
                {
                    return false;
                }

                if (Access(command.Command, address, _page.AsSpan(0, (int)length), ref result) is var error and not Errno.None)
                {
                    return TakeError(error, address, IsWrite(command.Command.Operation));
                }

                address += length;
            }

            command.Take(result);
        }

        CompleteCommand(outcome: null);
        return true;
    }

    private Errno Access(GuestCommand command, ulong address, Span<byte> bytes, ref uint result)
    {
        switch (command.Operation)
        {
            case GuestOperation.Store:
                BinaryPrimitives.WriteUInt32LittleEndian(bytes, command.Value);
                return _memory.TryWrite(address, bytes);
            case GuestOperation.Fill:
                var dwords = MemoryMarshal.Cast<byte, uint>(bytes);
                for (var i = 0; i < dwords.Length; i++)
                {
                    dwords[i] = GuestArithmetic.Pattern(address + ((ulong)i * sizeof(uint)), command.Value);
                }

                return _memory.TryWrite(address, bytes);
            default:
                var error = _memory.TryRead(address, bytes);
                if (error == Errno.None)
                {
                    result = command.Operation == GuestOperation.Load ? BinaryPrimitives.ReadUInt32LittleEndian(bytes) : Checksum(result, bytes);
                }

                return error;
        }
    }

    private static uint Checksum(uint checksum, ReadOnlySpan<byte> bytes)
    {
        foreach (var dword in MemoryMarshal.Cast<byte, uint>(bytes))
        {
            checksum = GuestArithmetic.Add(checksum, dword);
        }

        return checksum;
    }

    private static bool IsWrite(GuestOperation operation) => operation is GuestOperation.Store or GuestOperation.Fill;

    private bool TakeError(Errno error, ulong address, bool isWrite)
    {
        if (!GuestMemory.IsUnreadable(error))
        {
            return Fail($"access to 0x{address:x}: {error}");
        }

        // The handler needs the guest's tables and its stack.
        if (!IsReadable(GuestLayout.GlobalDescriptorTable) || !IsReadable(GuestLayout.StackTop - MemoryLayout.PageBytes))
        {
            return Fail($"poison in the guest's own program while a machine check for 0x{address:x} was handled");
        }

        var page = address & ~(MemoryLayout.PageBytes - 1);
        if (_memory.IsHardwarePoison(page))
        {
            _events.AddPoison(page, shift: 12, "srar");
        }

        CountMachineCheck();
        _events.AddMachineCheck(address, isWrite ? "write" : "read", vcpu: 0);
        CompleteCommand(new GuestOutcome.MachineCheck(new MachineCheckReport(
            MachineCheckBits.McgRestartErrorInProgress, MachineCheckBits.StatusSrar, page, MachineCheckBits.MiscPhysicalPage(_memory.ShiftAt(page)))));
        return true;
    }

    // A processor fetches its program from RAM: without it there is nothing that could be carried out.
    private bool IsProgramIntact()
    {
        var code = _page.AsSpan(0, _program.Code.Length);
        return _memory.TryRead(GuestLayout.Code, code) == Errno.None
            ? code.SequenceEqual(_program.Code) || Fail("the guest's program is not in its memory")
            : Fail($"poison in the guest's own program, at 0x{GuestLayout.Code:x}");
    }

    private bool IsReadable(ulong page) => _memory.TryRead(page, _page) == Errno.None;
}
