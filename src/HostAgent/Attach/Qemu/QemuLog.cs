using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;

namespace Fleet.HostAgent.Attach.Qemu;

/// <summary>What QEMU writes to its standard error, where it goes to a file: the only place where it names the address of a memory failure.</summary>
public sealed partial class QemuLog
{
    private const int MostBytes = 1 << 20;
    private readonly string _path;
    private long _offset;
    private string _rest = string.Empty;

    /// <summary>Begins at the end of what is there now.</summary>
    public QemuLog(string path) => (_path, _offset) = (path, File.Exists(path) ? new FileInfo(path).Length : 0);

    /// <summary>The failures in the lines that came since the last call; at most 1 MiB of them.</summary>
    /// <exception cref="IOException">The file cannot be read.</exception>
    /// <exception cref="UnauthorizedAccessException">The file may not be read.</exception>
    public IReadOnlyList<QemuLogEntry> ReadNew()
    {
        if (!File.Exists(_path))
        {
            return [];
        }

        using var file = new FileStream(_path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        if (file.Length < _offset)
        {
            // Truncated or replaced by a log rotation.
            (_offset, _rest) = (0, string.Empty);
        }

        file.Seek(_offset, SeekOrigin.Begin);
        var buffer = new byte[Math.Min(MostBytes, file.Length - _offset)];
        var read = file.ReadAtLeast(buffer, buffer.Length, throwOnEndOfStream: false);
        _offset += read;
        var text = _rest + Encoding.Latin1.GetString(buffer, 0, read);
        var end = text.LastIndexOf('\n') + 1;
        _rest = text.Length - end <= 4096 ? text[end..] : string.Empty;
        return Parse(text[..end]);
    }

    public static IReadOnlyList<QemuLogEntry> Parse(string text) => [.. Failure().Matches(text).Select(match => new QemuLogEntry(
        ulong.Parse(match.Groups["gpa"].ValueSpan, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture),
        match.Groups["type"].Value == "BUS_MCEERR_AR"))];

    // target/i386/kvm/kvm.c, kvm_arch_on_sigbus_vcpu.
    [GeneratedRegex(@"Guest MCE Memory Error at QEMU addr (0x)?[0-9a-f]+ and GUEST addr 0x(?<gpa>[0-9a-f]{1,16}) of type (?<type>BUS_MCEERR_A[RO]) injected")]
    private static partial Regex Failure();
}
