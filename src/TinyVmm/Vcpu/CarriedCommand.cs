namespace Fleet.TinyVmm.Vcpu;

/// <summary>
/// The state of a vCPU that is out of the guest, as another vCPU of the same kind takes it up. Between two pieces of a command
/// every register of the guest's program is dead, and a piece can be done again from its start with the same effect: loads and
/// checksums change nothing, stores and fills write the same values, and nobody else writes to the guest's memory. So the command under way,
/// with what was finished of it, is all of the state. A machine check that the guest was handling happens again with the access; the program itself, its tables and its stack are in RAM.
/// </summary>
/// <param name="Done">Bytes finished, in whole pieces.</param>
/// <param name="Partial">The result so far.</param>
public sealed record CarriedCommand(GuestCommand Command, ulong Done, uint Partial);
