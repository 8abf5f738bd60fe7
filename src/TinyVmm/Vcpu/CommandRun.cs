using Fleet.TinyVmm.Guest;

namespace Fleet.TinyVmm.Vcpu;

/// <summary>A command on its way through the guest, in pieces that the guest can reach at once.</summary>
internal sealed class CommandRun
{
    private readonly GuestCommand _command;
    private readonly TaskCompletionSource<GuestOutcome> _completion = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private ulong _done;
    private ulong _piece;
    private uint _value;

    public CommandRun(GuestCommand command) =>
        (_command, _value) = (command, command.Operation == GuestOperation.Checksum ? GuestArithmetic.ChecksumStart : command.Value);

    /// <summary>Goes on with a command that was under way in another VMM.</summary>
    public CommandRun(CarriedCommand carried) =>
        (_command, _done, _value) = (carried.Command, carried.Done, carried.Partial);

    public Task<GuestOutcome> Completion => _completion.Task;

    public GuestCommand Command => _command;

    public uint Operation => (uint)_command.Operation;

    /// <summary>Guest physical address of the present piece.</summary>
    public ulong Address => _command.Address + _done;

    public uint Count => (uint)(_piece / sizeof(uint));

    public uint Value => _command.Operation == GuestOperation.Fill ? (uint)Address : _value;

    public uint Key => GuestArithmetic.PatternKey(Address, _command.Value);

    /// <summary>Where another VMM must go on: at the start of the present piece.</summary>
    public CarriedCommand Carry() => new(_command, _done, _value);

    /// <summary>Goes on to the next piece; false when all were done.</summary>
    public bool Advance()
    {
        _done += _piece;
        _piece = HighMemoryWindow.Reach(Address, _command.Bytes - _done);
        return _piece != 0;
    }

    /// <summary>Takes the guest's result of the present piece.</summary>
    public void Take(uint result) => _value = result;

    public void Complete() => _completion.TrySetResult(new GuestOutcome.Completed(_value));

    public void Complete(GuestOutcome outcome) => _completion.TrySetResult(outcome);
}
