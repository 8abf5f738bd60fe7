using Fleet.Linux.Kvm;

namespace Fleet.TinyVmm.Guest;

/// <summary>
/// The program the guest runs: it reads an operation and its arguments from ports, does it with ordinary loads and stores,
/// and writes the result to a port. A machine check abandons the operation, reports the registers, and waits for the next.
/// </summary>
internal sealed class GuestProgram
{
    /// <summary>The bank that machine checks are injected into; the one QEMU uses.</summary>
    public const byte Bank = 9;

    private const uint McgStatus = 0x17a;
    private const uint BankStatus = 0x401 + (4 * Bank);
    private const uint BankAddress = 0x402 + (4 * Bank);
    private const uint BankMisc = 0x403 + (4 * Bank);

    // The instructions that touch memory at all: how, and through which register.
    private readonly Dictionary<uint, (string Access, Reg Pointer)> _accesses = [];

    public GuestProgram()
    {
        var asm = new X86Assembler((uint)GuestLayout.Code);
        EmitMain(asm);
        EmitOperations(asm);
        EmitMachineCheckHandler(asm);
        Entry = asm.AddressOf("main");
        MachineCheckHandler = asm.AddressOf("machine-check");
        Code = asm.ToArray();
    }

    public byte[] Code { get; }

    public uint Entry { get; }

    public uint MachineCheckHandler { get; }

    /// <summary>
    /// What the present instruction is about to do to memory: <c>read</c> or <c>write</c>, and at which address as the guest
    /// sees it; <c>unknown</c> when it is none of those that do.
    /// </summary>
    public (string Access, ulong? Address) AccessOf(KvmRegs registers) =>
        _accesses.TryGetValue((uint)registers.Rip, out var access)
            ? (access.Access, access.Pointer == Reg.Esi ? registers.Rsi : registers.Rdi)
            : ("unknown", null);

    private static void EmitMain(X86Assembler asm)
    {
        asm.Label("main");
        asm.In(GuestPorts.Operation); // blocks in the VMM while there is nothing to do
        asm.Mov(Reg.Ebp, Reg.Eax);
        asm.In(GuestPorts.Address);
        asm.Mov(Reg.Edi, Reg.Eax);
        asm.Mov(Reg.Esi, Reg.Eax);
        asm.In(GuestPorts.Count);
        asm.Mov(Reg.Ecx, Reg.Eax);
        asm.In(GuestPorts.Value);
        asm.Mov(Reg.Ebx, Reg.Eax);
        asm.In(GuestPorts.Key);
        asm.Mov(Reg.Edx, Reg.Eax);
        asm.Compare(Reg.Ebp, (sbyte)GuestOperation.Load);
        asm.JumpIfEqual("load");
        asm.Compare(Reg.Ebp, (sbyte)GuestOperation.Store);
        asm.JumpIfEqual("store");
        asm.Compare(Reg.Ebp, (sbyte)GuestOperation.Fill);
        asm.JumpIfEqual("fill");
        asm.Compare(Reg.Ebp, (sbyte)GuestOperation.Checksum);
        asm.JumpIfEqual("checksum");
        asm.Hlt(); // no such operation: the VMM stops the guest
    }

    private void EmitOperations(X86Assembler asm)
    {
        asm.Label("load");
        _accesses[asm.Here] = ("read", Reg.Edi);
        asm.LoadEaxAtEdi();
        asm.Label("result");
        asm.Out(GuestPorts.Result);
        asm.Jump("main");

        asm.Label("store");
        asm.Mov(Reg.Eax, Reg.Ebx);
        _accesses[asm.Here] = ("write", Reg.Edi);
        asm.StoreEaxAtEdi();
        asm.Jump("result");

        asm.Label("fill"); // [edi] = (ebx ^ edx) * multiplier, ecx times; ebx is the low half of the address
        asm.Mov(Reg.Eax, Reg.Ebx);
        asm.Xor(Reg.Eax, Reg.Edx);
        asm.Multiply(Reg.Eax, GuestArithmetic.PatternMultiplier);
        _accesses[asm.Here] = ("write", Reg.Edi);
        asm.Stosd();
        asm.Add(Reg.Ebx, sizeof(uint));
        asm.DecrementEcx();
        asm.JumpIfNotZero("fill");
        asm.Jump("result");

        asm.Label("checksum"); // ebx = (ebx ^ [esi]) * multiplier, ecx times
        _accesses[asm.Here] = ("read", Reg.Esi);
        asm.Lodsd();
        asm.Xor(Reg.Ebx, Reg.Eax);
        asm.Multiply(Reg.Ebx, GuestArithmetic.ChecksumMultiplier);
        asm.DecrementEcx();
        asm.JumpIfNotZero("checksum");
        asm.Mov(Reg.Eax, Reg.Ebx);
        asm.Jump("result");
    }

    private static void EmitMachineCheckHandler(X86Assembler asm)
    {
        asm.Label("machine-check");
        foreach (var register in (ReadOnlySpan<uint>)[McgStatus, BankStatus, BankAddress, BankMisc])
        {
            asm.Mov(Reg.Ecx, register);
            asm.Rdmsr();
            asm.Out(GuestPorts.MachineCheck);
            asm.Mov(Reg.Eax, Reg.Edx);
            asm.Out(GuestPorts.MachineCheck);
        }

        // MCG_STATUS.MCIP must be clear before the next machine check, or the processor shuts down.
        asm.Xor(Reg.Eax, Reg.Eax);
        asm.Xor(Reg.Edx, Reg.Edx);
        asm.Mov(Reg.Ecx, BankStatus);
        asm.Wrmsr();
        asm.Mov(Reg.Ecx, McgStatus);
        asm.Wrmsr();

        // The operation is abandoned, never resumed: whatever its load returned is overwritten by the next arguments.
        asm.Mov(Reg.Esp, GuestLayout.StackTop);
        asm.Jump("main");
    }
}
