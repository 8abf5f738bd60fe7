using System.Buffers.Binary;

namespace Fleet.TinyVmm.Guest;

/// <summary>32-bit registers, by their number in an instruction.</summary>
internal enum Reg : byte
{
    Eax,
    Ecx,
    Edx,
    Ebx,
    Esp,
    Ebp,
    Esi,
    Edi,
}

/// <summary>Emits the few 32-bit instructions that the guest's program needs (Intel SDM volume 2). Jumps are always rel32.</summary>
internal sealed class X86Assembler(uint origin)
{
    private readonly List<byte> _code = [];
    private readonly Dictionary<string, int> _labels = [];
    private readonly List<(int At, string Label)> _fixups = [];

    /// <summary>Address of the next instruction.</summary>
    public uint Here => origin + (uint)_code.Count;

    public void Label(string name) => _labels.Add(name, _code.Count);

    public uint AddressOf(string label) => origin + (uint)_labels[label];

    public void In(byte port) => Emit(0xe5, port); // in eax, imm8

    public void Out(byte port) => Emit(0xe7, port); // out imm8, eax

    public void Mov(Reg to, Reg from) => Emit(0x89, Registers(from, to)); // mov r/m32, r32

    public void Mov(Reg to, uint value) => EmitWithImmediate(value, (byte)(0xb8 + (byte)to)); // mov r32, imm32

    public void LoadEaxAtEdi() => Emit(0x8b, 0x07); // mov eax, [edi]

    public void StoreEaxAtEdi() => Emit(0x89, 0x07); // mov [edi], eax

    public void Lodsd() => Emit(0xad); // eax = [esi], esi += 4

    public void Stosd() => Emit(0xab); // [edi] = eax, edi += 4

    public void Xor(Reg to, Reg from) => Emit(0x31, Registers(from, to)); // xor r/m32, r32

    public void Add(Reg to, sbyte value) => Emit(0x83, Registers(0, to), (byte)value); // add r/m32, imm8

    public void Multiply(Reg to, uint value) => EmitWithImmediate(value, 0x69, Registers(to, to)); // imul r32, r32, imm32

    public void Compare(Reg with, sbyte value) => Emit(0x83, Registers((Reg)7, with), (byte)value); // cmp r/m32, imm8

    public void DecrementEcx() => Emit(0x49); // dec ecx

    public void Rdmsr() => Emit(0x0f, 0x32); // edx:eax = MSR ecx

    public void Wrmsr() => Emit(0x0f, 0x30); // MSR ecx = edx:eax

    public void Hlt() => Emit(0xf4);

    public void Jump(string label) => EmitJump(label, 0xe9); // jmp rel32

    public void JumpIfEqual(string label) => EmitJump(label, 0x0f, 0x84); // je rel32

    public void JumpIfNotZero(string label) => EmitJump(label, 0x0f, 0x85); // jne rel32

    /// <summary>The finished code, jumps resolved.</summary>
    public byte[] ToArray()
    {
        var code = _code.ToArray();
        foreach (var (at, label) in _fixups)
        {
            BinaryPrimitives.WriteInt32LittleEndian(code.AsSpan(at), _labels[label] - (at + sizeof(int)));
        }

        return code;
    }

    // ModRM with two registers: mod 11.
    private static byte Registers(Reg reg, Reg rm) => (byte)(0xc0 | ((byte)reg << 3) | (byte)rm);

    private void Emit(params ReadOnlySpan<byte> bytes) => _code.AddRange(bytes);

    private void EmitWithImmediate(uint value, params ReadOnlySpan<byte> opcode)
    {
        Emit(opcode);
        Span<byte> immediate = stackalloc byte[sizeof(uint)];
        BinaryPrimitives.WriteUInt32LittleEndian(immediate, value);
        Emit(immediate);
    }

    private void EmitJump(string label, params ReadOnlySpan<byte> opcode)
    {
        Emit(opcode);
        _fixups.Add((_code.Count, label));
        Emit(0, 0, 0, 0);
    }
}
