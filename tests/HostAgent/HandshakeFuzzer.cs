using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;
using Fleet.Contracts.Handoff;

namespace Fleet.HostAgent.Tests;

/// <summary>One generated connection of a VMM: what it sends, in which pieces, with which descriptors, and how it leaves.</summary>
/// <param name="Waits">For the agent's answer; else it closes at once.</param>
internal sealed record FuzzedHandshake(byte[] Bytes, int Split, int[] Descriptors, bool Waits);

/// <summary>Handoffs that are nearly right, or not at all. The same seed gives the same ones.</summary>
/// <param name="good">Descriptors of the right kinds: userfaultfd, memfd.</param>
/// <param name="others">Descriptors of every other kind, and of another VM.</param>
internal sealed partial class HandshakeFuzzer(int seed, HandoffMessage message, int[] good, int[] others)
{
    private static readonly string[] Values =
    [
        "null", "-1", "0", "1", "1e308", "9223372036854775807", "-9223372036854775808", "18446744073709551616", "true", "[]", "{}", "[null]", "\"\"", "\"0x0\"",
        "\"0xffffffffffffffff\"", "\"0xfffffffffffff000\"", "\"0x\"", "\"handoff\"", "\"\\u0000\"", "\"vm-1\"", "4096", "2097152", "0.5", "\"\\ud800\"",
    ];

    private static readonly string[] Tails =
    [
        "garbage\n", "{}\n", "null\n", "\n\n\n", "{\"type\":\"state\",\"state\":\"running\"}\n", "{\"type\":\"state\"}\n",
        "{\"type\":\"mce-injected\",\"sequence\":9223372036854775807,\"guestPhysicalAddress\":\"0xffffffffffffffff\",\"count\":1,\"at\":\"2026-01-01T00:00:00Z\"}\n",
        "{\"type\":\"poison\",\"sequence\":1,\"guestPhysicalAddress\":\"0x0\",\"shift\":63,\"count\":1,\"at\":\"2026-01-01T00:00:00Z\"}\n", "{\"type\":\"poison\"",
    ];

    private readonly Random _random = new(seed);
    private readonly string _good = Encoding.UTF8.GetString(JsonSerializer.SerializeToUtf8Bytes(message, HandoffJson.Default.HandoffMessage));

    public FuzzedHandshake Next()
    {
        var bytes = _random.Next(12) switch
        {
            0 => Line(_good),
            1 or 2 or 3 => Line(WithOtherValues()),
            4 => Line(WithOtherRegions()),
            5 or 6 => Line(Damage(_good)),
            7 => Line(Damage(WithOtherValues())),
            8 => RandomBytes(_random.Next(2000)),
            9 => [.. Line(_good), .. Encoding.UTF8.GetBytes(Damage(Pick(Tails)))],
            10 => Encoding.UTF8.GetBytes(_good[.._random.Next(_good.Length)]),
            _ => Rare(),
        };
        // Without an end of line the agent waits for more: then nobody waits for its answer.
        var waits = bytes.Contains((byte)'\n') && _random.Next(4) > 0;
        return new FuzzedHandshake(bytes, bytes.Length > 1 && _random.Next(10) == 0 ? _random.Next(1, bytes.Length) : bytes.Length, Descriptors(), waits);
    }

    private byte[] Rare() => _random.Next(100) switch
    {
        < 2 => RandomBytes(HandoffProtocol.MaximumLineBytes + 10, newlines: false),
        < 10 => Line(new string('[', 50_000)),
        < 20 => Line(_good[..^1] + "," + string.Join(',', Enumerable.Range(0, 2000).Select(i => $"\"x{i}\":{i}")) + "}"),
        _ => Line(Pick(Values)),
    };

    private int[] Descriptors() => _random.Next(10) switch
    {
        0 => [],
        1 => [good[0]],
        2 => [good[1], good[0]],
        3 => [good[0], Pick(others)],
        4 => [Pick(others), good[1]],
        5 => [.. Enumerable.Range(0, _random.Next(1, 253)).Select(_ => Pick(others))],
        _ => good,
    };

    private string WithOtherValues()
    {
        var text = _good;
        for (var change = _random.Next(1, 4); change > 0; change--)
        {
            var values = JsonValue().Matches(text);
            var value = values[_random.Next(values.Count)].Groups[1];
            text = text[..value.Index] + Pick(Values) + text[(value.Index + value.Length)..];
        }

        return text;
    }

    private string WithOtherRegions()
    {
        var regions = Enumerable.Range(0, _random.Next(70)).Select(_ => message.Regions[0] with
        {
            GuestPhysicalAddress = Address(),
            HostVirtualAddress = Address(),
            Bytes = Number(),
            MemfdOffset = Number(),
            Memfd = _random.Next(-1, 3),
            MemfdNumber = _random.Next(-1, 300),
        });
        return Encoding.UTF8.GetString(JsonSerializer.SerializeToUtf8Bytes(message with { Regions = [.. regions] }, HandoffJson.Default.HandoffMessage));
    }

    private string Damage(string text)
    {
        var at = _random.Next(text.Length);
        var length = Math.Min(_random.Next(1, 40), text.Length - at);
        return _random.Next(4) switch
        {
            0 => text[..at] + (char)_random.Next(1, 0x3000) + text[(at + 1)..],
            1 => text[..at] + text[(at + length)..],
            2 => text[..(at + length)] + text[at..],
            _ => text[..at] + Encoding.Latin1.GetString(RandomBytes(length)) + text[at..],
        };
    }

    private byte[] RandomBytes(int length, bool newlines = true)
    {
        var bytes = new byte[length];
        _random.NextBytes(bytes);
        if (!newlines)
        {
            bytes.AsSpan().Replace((byte)'\n', (byte)'x');
        }

        return bytes;
    }

    private string Address() => $"0x{(ulong)_random.NextInt64() << _random.Next(20):x}";

    private long Number() => _random.NextInt64(long.MinValue, long.MaxValue) >> _random.Next(64);

    private T Pick<T>(T[] items) => items[_random.Next(items.Length)];

    private static byte[] Line(string text) => Encoding.UTF8.GetBytes(text + "\n");

    [GeneratedRegex("""(?<=[:\[,])("[^"]*"|-?[0-9]+)(?=[,}\]])""")]
    private static partial Regex JsonValue();
}
