using Fleet.TinyVmm.Guest;

namespace Fleet.TinyVmm.Vcpu;

/// <summary>A command on its way through the guest, in pieces that the guest can reach at once.</summary>
internal sealed class CommandRun(GuestCommand command)
{
    private readonly TaskCompletionSource<GuestOutcome> _completion = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private ulong _done;
    private ulong _piece;
    private uint _value = command.Operation == GuestOperation.Checksum ? GuestArithmetic.ChecksumStart : command.Value;

    public Task<GuestOutcome> Completion => _completion.Task;

    public uint Operation => (uint)command.Operation;

    /// <summary>Guest physical address of the present piece.</summary>
    public ulong Address => command.Address + _done;

    public uint Count => (uint)(_piece / sizeof(uint));

    public uint Value => command.Operation == GuestOperation.Fill ? (uint)Address : _value;

    public uint Key => GuestArithmetic.PatternKey(Address, command.Value);

    /// <summary>Goes on to the next piece; false when all were done.</summary>
    public bool Advance()
    {
        _done += _piece;
        _piece = HighMemoryWindow.Reach(Address, command.Bytes - _done);
        return _piece != 0;
    }

    /// <summary>Takes the guest's result of the present piece.</summary>
    public void Take(uint result) => _value = result;

    public void Complete() => _completion.TrySetResult(new GuestOutcome.Completed(_value));

    public void Complete(GuestOutcome outcome) => _completion.TrySetResult(outcome);
}
